"""Files made to harm: pickles under every name that is looked at, names that lead elsewhere, headers that lie.

Each is tried in a child process, which ends with an error of ours that names the file: soon, without a pickle run,
without a look at a file elsewhere, and without more memory than a file of ours could want.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stderr
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from stores import make_meta
from tiny_models import SIZE, tiny_episode, tiny_vqvae, tiny_world

from reliability.outcome import Guarantee, Outcome
from vqvideo import durable
from vqvideo.checkpoint import TrainingState, latest_training, load_training, save_training
from vqvideo.config import Experiment
from vqvideo.data.clips import Clips, StepBatches
from vqvideo.data.codes import CodeArrays, CodeClips, SegmentConfig, cached_codes
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError
from vqvideo.records import read_yaml, typed
from vqvideo.run_folder import RunFolder
from vqvideo.vqvae import VQVAE
from vqvideo.world import WorldModel

MOST_GROWTH = 256
"""MiB by which a child may grow while it refuses a file."""
DEADLINE = 10.0
"""Seconds after which a child hangs. (How long a refusal takes is measured, not judged: machines differ.)"""


# ---------------------------------------------------------------- children


class Ended(NamedTuple):
    """How something went in a child process."""

    kind: str
    """Class of the error; "" for none, "hung" or "died"."""
    message: str
    growth: float
    """MiB between the memory at the start and the most in between."""
    seconds: float

    @property
    def refused(self) -> bool:
        """Whether it ended with an error of ours."""
        return self.kind == "InputError"


def in_child(action: Callable[[], object], deadline: float = DEADLINE) -> Ended:
    """Runs `action` in a forked child, which is killed past its deadline."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_report, args=(action, there))
    child.start()
    there.close()
    try:
        return here.recv() if here.poll(deadline) else Ended("hung", f"for {deadline:g} s", 0.0, deadline)
    except EOFError:
        child.join()
        return Ended("died", f"with code {child.exitcode}", 0.0, 0.0)
    finally:
        child.kill()
        child.join()


def _report(action: Callable[[], object], there: Connection) -> None:
    # As in the workers of a DataLoader: a fork does not inherit the threads of its parent.
    torch.set_num_threads(1)
    logging.disable()
    kind, message = "", ""
    start, began = _most_memory(), time.perf_counter()
    try:
        with redirect_stderr(io.StringIO()):
            action()
    except BaseException as error:
        kind = "InputError" if isinstance(error, InputError) else type(error).__name__
        message = str(error)
    there.send(Ended(kind, message[:2000], _most_memory() - start, time.perf_counter() - began))
    there.close()
    os._exit(0)


def _most_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


# ---------------------------------------------------------------- what is attacked


class Things(NamedTuple):
    """One of each that is loaded, in a folder of its own."""

    root: Path

    @property
    def checkpoint(self) -> Path:
        """The newest of two."""
        return self.root / "run" / "checkpoints" / "step-00000010"

    @property
    def store(self) -> Path:
        """Of three episodes."""
        return self.root / "store"

    def load_checkpoint(self) -> object:
        """As a run that resumes, and as one that names the checkpoint."""
        latest_training(self.checkpoint.parent)
        return load_training(self.checkpoint)

    def load_vqvae(self) -> object:
        """As train_prior."""
        return VQVAE.from_pretrained(self.root / "vqvae")

    def load_world(self) -> object:
        """As a rollout."""
        return WorldModel.from_pretrained(self.root / "world")

    def load_store(self) -> object:
        """As the first steps of train_vqvae."""
        store = Store.open(self.store)
        clips = [Clips(store, split, 3) for split in sorted({entry.split for entry in store.entries})]
        orders = [next(iter(StepBatches(len(each), 4, 0, stop=1))) for each in clips]
        return [each[i] for each, order in zip(clips, orders, strict=True) for i in [*order, 0, len(each) - 1]]

    def load_codes(self) -> object:
        """As train_prior."""
        return CodeClips(read_codes(self.store), 2)[0]

    def load_config(self) -> object:
        """As every script."""
        config = self.root / "config.yaml"
        return typed(Experiment, read_yaml(config), str(config))

    def load_metrics(self) -> object:
        """As a run that resumes."""
        return RunFolder(self.root / "run").records()


def read_codes(store: Path) -> CodeArrays:
    """From the cache, or made and cached."""
    vqvae = tiny_vqvae()
    segments = SegmentConfig(3, 3)
    return cached_codes(vqvae, vqvae.fingerprint(), Store.open(store), "train", segments, torch.device("cpu"))


Load = Callable[[Things], object]


def make_things(root: Path) -> Things:
    """Untrained, and as small as they can be."""
    things = Things(root)
    things.checkpoint.parent.mkdir(parents=True)
    for step in (5, 10):
        weights = {"layer.weight": torch.full((3, 4), float(step))}
        state = TrainingState(weights, {"layer.weight/exp_avg": torch.ones(3, 4)}, weights, {"step": step}, weights)
        save_training(things.checkpoint.parent, step, state, keep=2)
    RunFolder(root / "run").log({"step": 5, "split": "train", "loss": 1.0})
    tiny_vqvae().save_pretrained(root / "vqvae")
    tiny_world().save_pretrained(root / "world")
    with StoreWriter.open(things.store, make_meta(frame_size=(SIZE, SIZE))) as writer:
        for index in range(3):
            writer.add(index, tiny_episode(8, 3 + index), "held_out" if index == 2 else "train")
    (root / "config.yaml").write_text("name: tiny\nvqvae:\n  train: {steps: 7}\n")
    with redirect_stderr(io.StringIO()):
        read_codes(things.store)
    for load in set(loaded(things).values()):
        load(things)
    return things


def loaded(things: Things) -> dict[Path, Load]:
    """Every file that is loaded, by its path below the root, and who loads it."""
    (cache,) = (things.store / "codes").iterdir()
    folders: dict[Path, Load] = {
        things.checkpoint: Things.load_checkpoint,
        things.root / "vqvae": Things.load_vqvae,
        things.root / "world": Things.load_world,
        things.store: Things.load_store,
        things.store / "episodes": Things.load_store,
        cache: Things.load_codes,
        things.root / "run": Things.load_metrics,
        things.root: Things.load_config,
    }
    return {
        file.relative_to(things.root): load
        for folder, load in folders.items()
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name != "README.md"
    }


def reseal(file: Path) -> None:
    """Makes all digests right for what is in a file now: who plants a file can write a manifest too."""
    manifest = file.parent / durable.MANIFEST
    lines = file.parents[1] / "manifest.jsonl"
    found = {"size": file.stat().st_size, "sha256": durable.sha256_file(file)}
    if manifest.is_file() and file != manifest:
        record = json.loads(manifest.read_bytes())
        record["files"][file.name] = found
        manifest.write_text(json.dumps(sealed(record)))
    elif file.parent.name == "episodes":
        records = [json.loads(line) for line in lines.read_text().splitlines()]
        for record in records:
            if record["file"].endswith(file.name):
                record |= {"bytes": found["size"], "sha256": found["sha256"]}
        lines.write_text("".join(json.dumps(sealed(record, 16)) + "\n" for record in records))


def sealed(record: Mapping[str, Any], digits: int = 64) -> dict[str, Any]:
    """A record with a digest that fits, whatever digest it had."""
    return durable.seal({name: value for name, value in record.items() if name != "digest"}, digits)


# ---------------------------------------------------------------- cases


class Case(NamedTuple):
    """A hostile file."""

    name: str
    file: Path
    """Below the root."""
    plant: Callable[[Path], object]
    """Puts it into place, given the path."""
    load: Load
    refused: bool = True
    """Whether it must be; what is only looked past may be loaded."""
    named: Path | None = None
    """What the error has to name; by default the file."""


def tried(work: Path, cases: Callable[[Things], Iterable[Case]], trials: int, seed: int) -> Outcome:
    """Tries cases, or `trials` of them, each in a copy of all things."""
    things = make_things(work / "things")
    listed = list(cases(things))
    chosen = random.Random(seed).sample(listed, min(trials, len(listed)))
    failures: list[str] = []
    growth, seconds = 0.0, 0.0
    for case in chosen:
        copy = Things(work / "copy")
        shutil.copytree(things.root, copy.root)
        case.plant(copy.root / case.file)
        ended = in_child(lambda case=case, copy=copy: case.load(copy))  # type: ignore[misc]
        growth, seconds = max(growth, ended.growth), max(seconds, ended.seconds)
        failures += [f"{case.file} {case.name}: {complaint}" for complaint in complaints(case, copy, ended)]
        shutil.rmtree(copy.root)
    return Outcome(len(chosen), tuple(failures), {"largest growth, MiB": growth, "slowest refusal, s": seconds})


def complaints(case: Case, things: Things, ended: Ended) -> Iterator[str]:
    """What went wrong."""
    if ended.kind and not ended.refused:
        yield f"{ended.kind}: {ended.message}"
    elif case.refused and not ended.kind:
        yield "was loaded"
    elif case.refused and not _is_named(things.root / (case.named or case.file), ended.message):
        yield f"the error does not name the file: {ended.message}"
    if ended.growth > MOST_GROWTH:
        yield f"took {ended.growth:.0f} MiB"
    if marker(things.root).exists():
        yield "a pickle ran"


def _is_named(file: Path, message: str) -> bool:
    # Of weights and settings that are both whole, none can be said to be the wrong one.
    together = "does not fit its config" in message or "unexpected tensor" in message
    return str(file.parent) in message and (file.name in message or together)


# ---------------------------------------------------------------- pickles


def marker(root: Path) -> Path:
    """Where a pickle leaves its mark."""
    return root / "a pickle was here"


class Mark:
    """Leaves a mark when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


def pickled(root: Path) -> bytes:
    """A plain pickle."""
    return pickle.dumps(Mark(marker(root)))


def torch_file(root: Path) -> bytes:
    """What `torch.save` writes."""
    file = io.BytesIO()
    torch.save({"weight": Mark(marker(root))}, file)
    return file.getvalue()


def numpy_file(root: Path) -> bytes:
    """An .npz file with an array of objects."""
    file = io.BytesIO()
    np.savez(file, codes=np.array([Mark(marker(root))], dtype=object))
    return file.getvalue()


def yaml_file(root: Path) -> bytes:
    """YAML with a tag that makes Python call something."""
    return f"name: !!python/object/apply:os.mkdir ['{marker(root)}']\n".encode()


BITES: tuple[Callable[[Path], bytes], ...] = (pickled, torch_file, numpy_file, yaml_file)
STRANGERS = (
    *("custom_checkpoint_0.pkl", "random_states_0.pkl", "scheduler.bin", "optimizer.bin", "pytorch_model.bin"),
    *("model.pkl", "training_args.bin", "scaler.pt", ".metadata", "data.npz", "config.pkl", "model.safetensors.pkl"),
)
"""Names that other libraries unpickle."""


def pickles(things: Things) -> Iterator[Case]:
    """Every file replaced by each kind of pickle, with digests that fit and with those that were; and others beside."""
    files = loaded(things)
    for (file, load), bite in itertools.product(files.items(), BITES):
        for fits in (True, False):

            def plant(path: Path, bite: Callable[[Path], bytes] = bite, fits: bool = fits, file: Path = file) -> None:
                path.write_bytes(bite(path.parents[len(file.parts) - 1]))
                if fits:
                    reseal(path)

            name = f"replaced by {bite.__name__}{' with digests that fit' if fits else ''}"
            # What follows the last newline of the metrics is no line yet.
            yield Case(name, file, plant, load, refused=load is not Things.load_metrics)
    for folder, load in {file.parent: load for file, load in files.items()}.items():
        for stranger in STRANGERS:

            def beside(path: Path, folder: Path = folder) -> None:
                path.write_bytes(pickled(path.parents[len(folder.parts)]))

            yield Case("beside", folder / stranger, beside, load, refused=False)


def planted_pickles(work: Path, trials: int, seed: int) -> Outcome:
    """Pickles under every name that is looked at, and under those that other libraries load."""
    return tried(work, pickles, trials, seed)


# ---------------------------------------------------------------- names that lead elsewhere

LEADING_ELSEWHERE = (
    *("../outside", "/etc/passwd", "a/../../outside", "episodes/../../outside", "a\0b", "x" * 5000, "concat:a|b", ""),
    *("http://localhost/x", "\\\\srv\\x", "/dev/zero", ".hidden", "file:x", "a b", "ä", ".", "..", "-rf", "con\n"),
)


def names(things: Things) -> Iterator[Case]:
    """Manifests that name such a file, in a line or among the files of a folder; and links, pipes and folders."""
    files = loaded(things)
    for file, load in files.items():
        for name in LEADING_ELSEWHERE:
            if file.name == durable.MANIFEST:
                yield Case(f"names {name[:40]!r}", file, lambda path, name=name: _name_member(path, name), load)
            if file.name == "manifest.jsonl":
                yield Case(f"names {name[:40]!r}", file, lambda path, name=name: _name_episode(path, name), load)
        for what in (_link, _pipe, _folder, _device):
            # A user may keep these elsewhere and link to them; a cache without a manifest is none, and made again.
            linked = what is _link and load in (Things.load_config, Things.load_metrics)
            remade = what is not _link and load is Things.load_codes and file.name == durable.MANIFEST
            refused = not (linked or remade)
            yield Case(f"is {what.__doc__}", file, what, load, refused)
    yield Case("is a link to a folder", Path("store/episodes"), _link, Things.load_store)


def _name_member(path: Path, name: str) -> None:
    record = json.loads(path.read_bytes())
    record["files"][name] = next(iter(record["files"].values()))
    path.write_text(json.dumps(sealed(record)))


def _name_episode(path: Path, name: str) -> None:
    lines = path.read_text().splitlines()
    record = json.loads(lines[0]) | {"file": name}
    path.write_text("\n".join([json.dumps(sealed(record, 16)), *lines[1:], ""]))


def _link(path: Path) -> None:
    """a link to a good copy elsewhere"""
    elsewhere = path.parent / f"elsewhere-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _pipe(path: Path) -> None:
    """a pipe"""
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    """a folder"""
    path.unlink()
    path.mkdir()


def _device(path: Path) -> None:
    """a link to an endless device"""
    path.unlink()
    path.symlink_to("/dev/zero")


def names_elsewhere(work: Path, trials: int, seed: int) -> Outcome:
    """Names, links and pipes that would be read, or waited for, if they were opened."""
    return tried(work, names, trials, seed)


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
        path.write_text("\n".join([json.dumps(sealed(record, 16)), *lines[1:], ""]))

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
        "planted-pickles",
        "Nothing that is loaded is ever unpickled, whatever name it has and however well its digests fit.",
        planted_pickles,
        fast=40,
        long=1000,
    ),
    Guarantee(
        "names-elsewhere",
        "Names in manifests, links, pipes and devices lead to no other file, and nobody waits for them.",
        names_elsewhere,
        fast=40,
        long=1000,
    ),
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
