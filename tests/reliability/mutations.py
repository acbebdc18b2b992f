"""Random mutations of JSON values and of bytes, and how mutated values are written."""

from __future__ import annotations

import copy
import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reliability.things import sealed

INTERESTING: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 255, 2**31, -(2**31), 2**53, 2**63, -(2**63) - 1, 10**12, 10**30, 10**400),
    *(0.5, -0.0, 1e-300, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 3.0),
    *(
        "",
        "x",
        "inf",
        "-inf",
        "nan",
        "1e-3",
        "0",
        "kind",
        "../x",
        "a\0b",
        "ä" * 50,
        "\ud800",
        "9" * 400,
        "discrete",
        "box",
    ),
    *([], {}, [[]], [{}], {"": ""}, {"kind": "EMAVQ"}, {"kind": []}, [1, 2], [0, 0], [-1, -1], [2**40, 2**40], ["inf"]),
)
"""Values that parsers stumble over."""


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where all values inside a JSON value are."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths(item, (*path, key))


def mutated(value: Any, rng: random.Random) -> Any:
    """A JSON value with one to three changes: values, keys and types swapped, removed, doubled, nested."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(paths(value))
        place = rng.choice(places)
        if not place:
            value = _other(value, rng) if rng.random() < 0.1 else value
            continue
        holder = _at(value, place[:-1])
        how = rng.random()
        if how < 0.15:
            del holder[place[-1]]
        elif how < 0.25:
            holder[place[-1]] = copy.deepcopy(_at(value, rng.choice(places)))
        elif how < 0.32 and isinstance(holder, dict):
            holder[rng.choice(("x", "kind", "digest", "", "ä", str(place[-1]) + "s"))] = holder.pop(place[-1])
        elif how < 0.4 and isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(holder[place[-1]]))
        else:
            holder[place[-1]] = _other(holder[place[-1]], rng)
    return value


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _other(value: Any, rng: random.Random) -> Any:
    """Another value in its place."""
    how = rng.random()
    if isinstance(value, int | float) and not isinstance(value, bool) and how < 0.4:
        return rng.choice(
            (value + 1, value - 1, -value, value * 2, value * 10**6, f"{value}", [value], 0.5, value // 1)
        )
    if isinstance(value, str) and how < 0.4:
        return rng.choice((value[:-1], value + "x", value.upper(), [value], value * 100, {"kind": value}))
    if how < 0.47:
        return _nest(value, rng.choice((2, 40, 200, 900, 1200)), rng.random() < 0.5)
    return copy.deepcopy(rng.choice(INTERESTING))


def _nest(value: Any, depth: int, lists: bool) -> Any:
    for _ in range(depth):
        value = [value] if lists else {"kind": "tuple", "spaces": [value]}
    return value


@contextmanager
def deep() -> Iterator[None]:
    """Room to write what is nested deeper than it can be read."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(30_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def as_json(value: Any) -> str:
    """JSON text; infinity as a number that is too large, which JSON allows."""
    return json.dumps(value).replace("Infinity", "1e999")


def as_sealed_json(value: Any) -> str:
    """The same with a digest that fits, if there can be one."""
    try:
        return as_json(sealed(value))
    except (ValueError, TypeError, AttributeError):
        return as_json(value)


def scrambled(data: bytes, rng: random.Random) -> bytes:
    """Bytes with one to four changes: flipped, overwritten, removed, doubled, cut off."""
    for _ in range(rng.randint(1, 4)):
        place, size = rng.randrange(len(data) + 1), rng.randint(1, 12)
        how = rng.random()
        if how < 0.4:
            flipped = bytes(byte ^ (1 << rng.randrange(8)) for byte in data[place : place + 1])
            data = data[:place] + flipped + data[place + 1 :]
        elif how < 0.6:
            data = data[:place] + rng.choice(TOKENS) + data[place:]
        elif how < 0.75:
            data = data[:place] + data[place + size :]
        elif how < 0.9:
            data = data[:place] + data[place : place + size] * rng.choice((2, 3, 50)) + data[place + size :]
        else:
            data = data[:place]
    return data


TOKENS = (
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\n", b"\0", b"\xff", b"\xe2\x80\xa8", b"- ", b"? ", b"#"),
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-", b"0x10", b"1e-400", b"9" * 5000, b"[" * 1200),
    *(b'{"a":' * 1200, b"!!python/object/apply:os.getpid []", b"!!set {a}", b"!!binary aGk=", b"&a [*a]", b"*a"),
    *(b"<<: ", b"2024-13-45", b"%YAML 9.9\n---\n", b"---\n", b"|\n", b">\n", b"!!timestamp 1", b"0o17", b"1_0"),
    *(b"190:20:30", b".nan", b"~", b"0b1", b"\t"),
)
