"""Random mutations of everything that is parsed, with digests that fit, so that the parsers behind them are reached.

Whatever comes out is a value or an error of ours: no other exception, no hang, no death for want of memory.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from io import StringIO
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, get_args

import torch
import yaml
from gymnasium import spaces as native

from reliability.hostile import MOST_GROWTH, Load, Things, loaded, make_things, reseal, sealed, with_header
from reliability.outcome import Guarantee, Outcome
from vqvideo import durable
from vqvideo.backbones import BackboneConfig
from vqvideo.config import Experiment
from vqvideo.errors import InputError
from vqvideo.native_spaces import to_gymnasium
from vqvideo.prior.conditioning import ConditioningConfig
from vqvideo.prior.heads import HeadConfig
from vqvideo.prior.pooling import PoolingConfig
from vqvideo.quantizers import BuiltInConfig
from vqvideo.records import kind_of, to_plain
from vqvideo.spaces import ActionSpace

PATIENCE = 5
"""Seconds for one input."""

# ---------------------------------------------------------------- mutations


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


def as_sealed_json(value: Any, digits: int = 64) -> str:
    """The same with a digest that fits, if there can be one."""
    try:
        return as_json(sealed(value, digits))
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


# ---------------------------------------------------------------- what is fuzzed


class Input(NamedTuple):
    """Something to be parsed."""

    shown: str
    """What it is, for a report."""
    load: Callable[[], object]
    """Parses it."""
    touched: tuple[Path, ...] = ()
    """Files that are not as they were."""


Target = Callable[[random.Random], Input]
"""Makes an input."""


def targets(things: Things) -> dict[str, Target]:
    """Everything that is parsed, by name."""
    found: dict[str, Target] = {"action space": action_space, "action": action}
    for file, load in loaded(things).items():
        path, name = things.root / file, f"{file.parent.name}/{file.name}"
        if file.name == "manifest.json" or file.name == "meta.json":
            found[name] = _file(things, path, load, _changed_record)
        elif file.name in ("manifest.jsonl", "metrics.jsonl"):
            found[name] = _file(things, path, load, _changed_line)
        elif file.suffix == ".json":
            found[name] = _file(things, path, load, _changed_config)
        elif file.suffix == ".yaml":
            found[name] = _file(things, path, load, _changed_settings)
        elif file.suffix == ".safetensors":
            found[name] = _file(things, path, load, _changed_header)
        found[f"{name}, scrambled"] = _file(things, path, load, _scrambled)
    return found


def _file(things: Things, path: Path, load: Load, change: Callable[[Path, random.Random], str]) -> Target:
    beside = (path.parent / durable.MANIFEST, path.parents[1] / "manifest.jsonl")

    def make(rng: random.Random) -> Input:
        with deep():
            shown = change(path, rng)
        return Input(shown, lambda: load(things), (path, *(other for other in beside if other.is_file())))

    return make


def _changed_record(path: Path, rng: random.Random) -> str:
    record = json.loads(path.read_bytes())
    text = as_sealed_json(mutated(record, rng))
    path.write_text(text)
    return text


def _changed_line(path: Path, rng: random.Random) -> str:
    lines = path.read_text().splitlines()
    number = rng.randrange(len(lines))
    lines[number] = as_sealed_json(mutated(json.loads(lines[number]), rng), 16)
    path.write_text("\n".join([*lines, ""]))
    return lines[number]


def _changed_config(path: Path, rng: random.Random) -> str:
    config = json.loads(path.read_bytes())
    model = config.get("vqvae", config)["model"]
    # Of another kind than was saved, so that every kind is tried.
    for name, kinds in (("quantizer", BuiltInConfig), ("backbone", BackboneConfig)):
        model[name] = _kind(kinds, rng, model[name])
    if "prior" in config:
        for name, kinds in (("head", HeadConfig), ("conditioning", ConditioningConfig), ("pooling", PoolingConfig)):
            config["prior"][name] = _kind(kinds, rng, config["prior"][name])
    text = as_json(mutated(config, rng))
    path.write_text(text)
    reseal(path)
    return text


def _kind(kinds: Any, rng: random.Random, saved: Any) -> Any:
    """One of several kinds of settings with its defaults; half of the time what was saved."""
    if rng.random() < 0.5:
        return saved
    kind = rng.choice(get_args(kinds))
    return {"kind": kind_of(kind), **to_plain(kind())}


def _changed_settings(path: Path, rng: random.Random) -> str:
    plain = to_plain(Experiment())
    value = mutated({name: plain[name] for name in rng.sample(sorted(plain), 2)}, rng)
    try:
        text = yaml.safe_dump(value, allow_unicode=True)
    except (yaml.YAMLError, ValueError):
        text = as_json(value)
    path.write_bytes(text.encode(errors="surrogatepass"))
    return text


def _changed_header(path: Path, rng: random.Random) -> str:
    shown = ""

    def change(header: dict[str, Any]) -> dict[str, Any]:
        nonlocal shown
        own = header.get("__metadata__", {}).get("vqvideo")
        if own is not None and rng.random() < 0.6:
            changed = header | {"__metadata__": {"vqvideo": as_json(mutated(json.loads(own), rng))}}
        else:
            changed = mutated(header, rng)
        shown = as_json(changed)
        return changed

    with_header(path, change)
    return shown


def _scrambled(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    # Of tensors the header matters, of a record what it says.
    head = data[:2000] if path.suffix == ".safetensors" else data
    changed = scrambled(head, rng)
    path.write_bytes(changed + data[len(head) :])
    reseal(path)
    return repr(changed)


SPACES: tuple[native.Space, ...] = (
    native.Discrete(5, start=-2),
    native.MultiDiscrete([3, 2]),
    native.MultiBinary(3),
    native.Box(-1, 1, (2, 2)),
    native.Box(0, 255, (2,), "uint8"),
    native.Dict({"arm": native.Tuple([native.Box(-1, 1, (2,)), native.Discrete(2)]), "z": native.MultiBinary(3)}),
)


def action_space(rng: random.Random) -> Input:
    """The description of a space, and what is done with it."""
    with deep():
        value = mutated(ActionSpace.from_gymnasium(rng.choice(SPACES)).to_json(), rng)
        shown = as_json(value)

    def use() -> None:
        space = ActionSpace.from_json(value)
        again = ActionSpace.from_json(json.loads(json.dumps(space.to_json(), allow_nan=False)))
        assert (again, str(again), hash(again)) == (space, str(space), hash(space))
        made = to_gymnasium(space)
        # (Equal but for bounds that are no numbers of its type: 1e-300 in float32.)
        assert ActionSpace.from_gymnasium(made).size == space.size
        made.seed(0)
        sample = made.sample()
        assert made.contains(space.unflatten(space.flatten(sample)))

    return Input(shown, use)


def action(rng: random.Random) -> Input:
    """An action that a policy chose."""
    space = ActionSpace.from_gymnasium(rng.choice(SPACES))
    good = _plain(to_gymnasium(space).sample())
    with deep():
        changed = mutated({"action": good}, rng)
        value = changed.get("action") if isinstance(changed, dict) else changed
        shown = f"{value!r:.400} in {space}"
    return Input(shown, lambda: space.unflatten(space.flatten(value)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


# ---------------------------------------------------------------- the loop


class HungError(BaseException):
    """Longer than anyone waits."""


def fuzzed(work: Path, trials: int, seed: int) -> Outcome:
    """Makes `trials` inputs, of each target in turn, and parses them in children."""
    things = make_things(work / "things")
    counts: Counter[str] = Counter()
    failures: list[str] = []
    growth, number = 0.0, 0
    while number < trials:
        # A child that grew or died is replaced, and the next one begins where it ended.
        copy_ = Things(work / f"copy-{number}")
        shutil.copytree(things.root, copy_.root)
        number = _watch(copy_, number, trials, seed, counts, failures)
        growth = max(growth, counts.pop("growth", 0))
        shutil.rmtree(copy_.root)
    figures = {"refused": float(counts["refused"]), "accepted": float(counts["accepted"])}
    return Outcome(trials, tuple(failures), {"targets": float(counts["targets"]), **figures, "growth, MiB": growth})


def _watch(things: Things, first: int, trials: int, seed: int, counts: Counter[str], failures: list[str]) -> int:
    """Follows a child from trial `first` on. Returns the first trial that it did not come to."""
    context = get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_fuzz, args=(things, first, trials, seed, there))
    child.start()
    there.close()
    number, name = first, "the start"
    try:
        while here.poll(4 * PATIENCE):
            kind, *rest = here.recv()
            if kind == "done":
                counts["growth"], counts["targets"] = rest[0], rest[1]
                return rest[2]
            if kind == "trial":
                number, name = rest
            elif kind == "failure":
                failures.append(f"{name}, trial {number} of seed {seed}: {rest[0]}")
            else:
                counts[kind] += 1
        failures.append(f"{name}, trial {number} of seed {seed}: hung")
    except EOFError:
        child.join()
        failures.append(f"{name}, trial {number} of seed {seed}: the process died with code {child.exitcode}")
    finally:
        child.kill()
        child.join()
    return number + 1


def _fuzz(things: Things, first: int, trials: int, seed: int, there: Connection) -> None:
    """What a child does: trial after trial, until an input took too much memory."""
    torch.set_num_threads(1)
    logging.disable()
    signal.signal(signal.SIGALRM, _hang)
    _limit_memory()
    whole = targets(things)
    healthy = {path: path.read_bytes() for path in things.root.rglob("*") if path.is_file()}
    most, number = 0.0, first
    with redirect_stderr(StringIO()):
        while number < trials and most <= MOST_GROWTH:
            name = list(whole)[number % len(whole)]
            there.send(("trial", number, name))
            made = whole[name](random.Random(f"{seed} {number}"))
            before = _forget_peak()
            kind, complaint = _parsed(made)
            grown = _status("VmHWM") - before
            if grown > MOST_GROWTH:
                kind, complaint = "failure", f"took {grown:.0f} MiB"
            there.send((kind, f"{complaint} from {made.shown:.600}"))
            for path in made.touched:
                path.write_bytes(healthy[path])
            most, number = max(most, grown), number + 1
    there.send(("done", most, len(whole), number))
    there.close()
    os._exit(0)


def _parsed(made: Input) -> tuple[str, str]:
    signal.alarm(PATIENCE)
    try:
        made.load()
    except InputError:
        return "refused", ""
    except HungError:
        return "failure", f"took more than {PATIENCE} s"
    except Exception as error:
        return "failure", f"{type(error).__name__}: {error!s:.300}"
    finally:
        signal.alarm(0)
    return "accepted", ""


def _hang(number: int, frame: FrameType | None) -> None:
    raise HungError


def _limit_memory() -> None:
    """An allocation of many GiB fails in the child, and the machine goes on."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 4 * 2**30, resource.RLIM_INFINITY))


def _forget_peak() -> float:
    """Lets the peak of the memory begin anew, where the kernel allows it. Returns what is used now, in MiB."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 2**10


GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        "fuzz",
        "No manifest, line, config, header, space or action, however malformed, brings anything but a value or an "
        "error that says what is wrong.",
        fuzzed,
        fast=420,
        long=30_000,
    ),
)
