"""Files that lie about themselves: headers of tensors that are not there, and sizes that nobody could want.

Each is tried as other hostile files are.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from reliability.hostile import Case, tried
from reliability.outcome import Guarantee, Outcome
from reliability.things import Things, loaded, reseal

# ---------------------------------------------------------------- headers that lie


Header = dict[str, Any]
"""Of a safetensors file, read as JSON."""


def _first(header: Header) -> str:
    return next(name for name in header if name != "__metadata__")


def _overlap(header: Header) -> Header:
    return header | {"another": header[_first(header)]}


def _entry(**change: Any) -> Callable[[Header], Header]:
    return lambda header: header | {_first(header): header[_first(header)] | change}


LIES: dict[str, Callable[[Header], Header]] = {
    "says that tensors overlap": _overlap,
    "says that tensors reach beyond the end": _entry(data_offsets=[0, 2**40]),
    "says that a tensor is 2**80 numbers": _entry(shape=[2**40, 2**40]),
    "says that a tensor is 2**63 numbers": _entry(shape=[2**63]),
    "says that a tensor has a negative side": _entry(shape=[-1]),
    "says that a tensor has thousands of sides": _entry(shape=[1] * 5000),
    "says that offsets are negative": _entry(data_offsets=[-8, 0]),
    "says that offsets are fractions": _entry(data_offsets=[0.5, 8.5]),
    "says that offsets run backwards": _entry(data_offsets=[8, 0]),
    "knows a type of its own": _entry(dtype="Q7"),
    "knows a type that is a number": _entry(dtype=7),
    "has metadata that are no text": lambda header: header | {"__metadata__": {"vqvideo": {"a": [1]}}},
    "has nothing in it": lambda header: {},
    "is a list": lambda header: [header],  # type: ignore[dict-item,return-value]
}
MISFITS: dict[str, Callable[[Header], Header]] = {
    "lacks a tensor": lambda header: {name: value for name, value in header.items() if name != _first(header)},
    "has a tensor more": lambda header: header | {"more": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}},
    "has a tensor renamed": lambda header: {("x" if n == _first(header) else n): v for n, v in header.items()},
}
"""Good files, but not of these models. (What a checkpoint holds is compared with the model when a run resumes.)"""


def with_header(path: Path, change: Callable[[Header], Header]) -> None:
    """Changes the header of a safetensors file."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    _write_safetensors(path, [json.dumps(change(json.loads(data[8 : 8 + size]))).encode()], data[8 + size :])


def _write_safetensors(path: Path, header: Iterable[bytes], rest: bytes, size: int | None = None) -> None:
    with open(path, "wb") as file:
        file.write(bytes(8))
        for part in header:
            file.write(part)
        end = file.tell()
        file.write(rest)
        file.seek(0)
        file.write(struct.pack("<Q", end - 8 if size is None else size))
    reseal(path)


_NOTHING = b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'


def _raw(*header: bytes) -> Callable[[Path], None]:
    return lambda path: _write_safetensors(path, header, b"")


HEADERS: dict[str, Callable[[Path], None]] = {
    "has a header of 2**63 bytes": lambda path: _write_safetensors(path, [b"{}"], b"", 2**63),
    "has a header of 99 MB that is not there": lambda path: _write_safetensors(path, [b"{"], b"", 99 * 10**6),
    "has a header of 99 MB, most of it spaces": _raw(b"{", b" " * 99 * 10**6, b"}"),
    "has a header of 300 000 tensors": lambda path: _write_safetensors(path, _many_tensors(300_000), b""),
    "is not in UTF-8": _raw(b'{"\xff\xfe":1}'),
    "is nested": _raw(b"[" * 10**5),
    "is no JSON": _raw(b"{,}"),
    "is empty": _raw(b""),
}
TWICE: dict[str, Callable[[Path], None]] = {"has a tensor twice": _raw(b'{"a":%s,"a":%s}' % (_NOTHING, _NOTHING))}


def _many_tensors(count: int) -> Iterator[bytes]:
    yield b'{"a":' + _NOTHING
    yield from (b',"%d":%s' % (number, _NOTHING) for number in range(count))
    yield b"}"


def headers(things: Things) -> Iterator[Case]:
    """Every safetensors file with every such header, with digests that fit."""
    for file, load in loaded(things).items():
        if file.suffix == ".safetensors":
            whole = load is Things.load_checkpoint
            for name, change in (LIES if whole else LIES | MISFITS).items():
                yield Case(name, file, lambda path, change=change: with_header(path, change), load)
            for name, plant in (HEADERS if whole else HEADERS | TWICE).items():
                yield Case(name, file, plant, load)


def lying_headers(work: Path, trials: int, seed: int) -> Outcome:
    """Headers of tensors that are not there, or not what they seem."""
    return tried(work, headers, trials, seed)


# ---------------------------------------------------------------- sizes that lie


def _line(**change: Any) -> Callable[[Path], None]:
    """The first line of a manifest with other values."""

    def plant(path: Path) -> None:
        lines = path.read_text().splitlines()
        record = json.loads(lines[0]) | change
        path.write_text("\n".join([json.dumps(record), *lines[1:], ""]))

    return plant


LYING_LINES = {
    "promises 10**12 steps": _line(length=10**12),
    "promises 10**12 steps in 10**15 bytes": _line(length=10**12, bytes=10**15),
    "promises all steps that a line can": _line(length=2**24),
    "promises a negative number of steps": _line(length=-1),
    "promises half a step": _line(length=0.5),
    "promises a number of 4000 digits": _line(length=10**4000),
    "has a reward of 400 digits": _line(total_reward=10**400),
}


def _write_parts(path: Path, parts: Iterable[bytes]) -> None:
    with open(path, "wb") as file:
        for part in parts:
            file.write(part)
    reseal(path)


def _repeated(before: bytes, item: bytes, after: bytes, size: int = 10**8) -> Callable[[Path], None]:
    whole, rest = divmod(size // len(item), 10**5)
    return lambda path: _write_parts(
        path, itertools.chain([before], itertools.repeat(item * 10**5, whole), [item * rest + after])
    )


BULK = {
    "is 100 MB of zeros": _repeated(b"", b"\0", b""),
    "is 100 MB of spaces": _repeated(b"", b" ", b"{}"),
    "is 100 MB of newlines": _repeated(b"", b"\n", b""),
    "is 100 MB of nested lists": _repeated(b"[[]", b",[{}]", b"]"),
    "is 60 MB of nested lists": _repeated(b"[[]", b",[{}]", b"]", 60 * 10**6),
    "is 60 MB of nested lists without an end of the line": _repeated(b'{"a": [[]', b",[{}]", b"", 60 * 10**6),
    "is 60 MB of one number": _repeated(b"[1", b"0", b"]", 60 * 10**6),
    "is nested 100 000 deep": _repeated(b"", b"[", b"", 10**5),
    "is nested 100 000 deep in a key": _repeated(b'{"a":', b'{"a":', b"", 10**5),
}


def _config(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def plant(path: Path) -> None:
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))
        reseal(path)

    return plant


def _vqvae_of(config: dict[str, Any]) -> dict[str, Any]:
    return config.get("vqvae", config)["model"]


LARGE_MODELS: dict[str, Callable[[dict[str, Any]], None]] = {
    "wants 2**40 codes": lambda c: _vqvae_of(c)["quantizer"].update(codebook_size=2**40),
    "wants 10**8 codes": lambda c: _vqvae_of(c)["quantizer"].update(codebook_size=10**8),
    "wants layers 10**9 wide": lambda c: _vqvae_of(c)["backbone"].update(widths=[10**9, 10**9]),
    "wants layers 4096 wide": lambda c: _vqvae_of(c)["backbone"].update(widths=[4096, 4096]),
    "wants 10**9 layers": lambda c: _vqvae_of(c)["backbone"].update(encoder_blocks=10**9),
}
LARGE_PRIORS: dict[str, Callable[[dict[str, Any]], None]] = {
    "wants 10**9 layers in its prior": lambda c: c["prior"].update(layers=10**9),
    "wants a prior 10**9 wide": lambda c: c["prior"].update(dim=2**30),
    "wants a prior 8192 wide": lambda c: c["prior"].update(dim=2**13),
    "wants 2**40 codes in its prior": lambda c: c["spec"].update(codebook_size=2**40),
    "wants 10**5 x 10**5 tokens": lambda c: c["spec"].update(grid=[10**5, 10**5]),
    "wants 2**40 frames per step": lambda c: c["spec"].update(stride=2**40),
}


def sizes(things: Things) -> Iterator[Case]:
    """Lines, files and models that promise too much, with digests that fit."""
    for file, load in loaded(things).items():
        if file.name == "manifest.jsonl":
            yield from (Case(name, file, plant, load) for name, plant in LYING_LINES.items())
            large, episode = _line(length=2**24, bytes=2**40), file.parent / "episodes" / "000000.safetensors"
            yield Case("promises many steps in a file as large", file, large, load, named=episode)
        if file.suffix != ".safetensors":
            # What follows the last newline of the metrics is no line yet.
            refused = load is not Things.load_metrics
            yield from (Case(name, file, plant, load, refused) for name, plant in BULK.items())
        if file.name == "config.json":
            large = LARGE_MODELS | (LARGE_PRIORS if load is Things.load_world else {})
            yield from (Case(name, file, _config(change), load) for name, change in large.items())


def lying_sizes(work: Path, trials: int, seed: int) -> Outcome:
    """Files that want more memory, or more time, than they are worth."""
    return tried(work, sizes, trials, seed)


GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        "lying-headers",
        "A file of tensors that lies about itself is refused by name, in no more than 256 MiB.",
        lying_headers,
        fast=40,
        long=1000,
    ),
    Guarantee(
        "lying-sizes",
        "A manifest, a config or a model that promises more than a file can hold is refused by name, in no more than "
        "256 MiB.",
        lying_sizes,
        fast=16,
        long=1000,
    ),
)
