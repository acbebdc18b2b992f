"""Files made to harm: pickles under every name that is looked at, and names that lead elsewhere.

Each is tried in a child process, which ends with an error of ours that names the file: soon, without a pickle run,
without a look at a file elsewhere, and without more memory than a file of ours could want.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from reliability.children import MOST_GROWTH, Ended, in_child
from reliability.outcome import Guarantee, Outcome
from reliability.things import Load, Things, loaded, make_things, reseal, sealed
from vqvideo.storage import files

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
    contents = loaded(things)
    for (file, load), bite in itertools.product(contents.items(), BITES):
        for fits in (True, False):

            def plant(path: Path, bite: Callable[[Path], bytes] = bite, fits: bool = fits, file: Path = file) -> None:
                path.write_bytes(bite(path.parents[len(file.parts) - 1]))
                if fits:
                    reseal(path)

            name = f"replaced by {bite.__name__}{' with digests that fit' if fits else ''}"
            # What follows the last newline of the metrics is no line yet.
            yield Case(name, file, plant, load, refused=load is not Things.load_metrics)
    for folder, load in {file.parent: load for file, load in contents.items()}.items():
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
    contents = loaded(things)
    for file, load in contents.items():
        for name in LEADING_ELSEWHERE:
            if file.name == files.MANIFEST:
                yield Case(f"names {name[:40]!r}", file, lambda path, name=name: _name_member(path, name), load)
            if file.name == "manifest.jsonl":
                yield Case(f"names {name[:40]!r}", file, lambda path, name=name: _name_episode(path, name), load)
        for what in (_link, _pipe, _folder, _device):
            # A user may keep these elsewhere and link to them; a cache without a manifest is none, and made again.
            linked = what is _link and load in (Things.load_config, Things.load_metrics)
            remade = what is not _link and load is Things.load_codes and file.name == files.MANIFEST
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
    path.write_text("\n".join([json.dumps(record), *lines[1:], ""]))


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
)
