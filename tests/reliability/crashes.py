"""One save, ended at each of its file calls in turn, by a crash of the process or by a failure of the power: the old
state is there or the new one, whole, and the next save succeeds.
"""

from __future__ import annotations

import builtins
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from processes import in_fork
from stores import make_episode, make_meta

from reliability.outcome import Guarantee, Outcome
from reliability.power import PowerModel
from vqvideo.data.store import Store, StoreWriter
from vqvideo.storage import files
from vqvideo.storage.checkpoint import (
    TrainingState,
    latest_training,
    load_model,
    save_model,
    save_training,
    training_checkpoints,
)

MOST_CALLS = 400
"""Of one save; it has far fewer."""
CALLS = ("open", "mkdir", "link", "fsync", "rename", "replace", "chmod", "unlink", "rmdir", "ftruncate")
"""Functions of `os` that change what is on the disk, or make it durable."""


@dataclass(frozen=True)
class Save:
    """Something that is saved: how, and what must be there afterwards."""

    name: str
    before: Callable[[Path], object]
    """Puts the old state into an empty folder."""
    save: Callable[[Path], object]
    """Puts the new one there."""
    state: Callable[[Path], str]
    """Reads, as the next run does, and names what is there. An error if that is nothing that may be used."""
    old: str
    new: str


# ---------------------------------------------------------------- checkpoints


def _two_checkpoints(folder: Path) -> None:
    for step in (1, 2):
        _save_checkpoint(step, step, folder)


def _save_checkpoint(step: int, content: int, folder: Path) -> None:
    """A checkpoint of a step; the oldest one is removed after it. `content` tells two of one step apart."""
    files.clean_temporaries(folder)
    tensors = {"w": torch.full((3,), float(content))}
    save_training(folder, step, TrainingState(tensors, {}, tensors, {"step": content}), keep=2)


def _newest_checkpoint(folder: Path) -> str:
    files.clean_temporaries(folder)  # as a run that goes on does before it reads
    state = latest_training(folder)
    assert state is not None, "there is no checkpoint"
    step = state.progress["step"]
    assert all(torch.equal(part["w"], torch.full((3,), float(step))) for part in (state.model, state.average))
    assert len(training_checkpoints(folder)) >= 2, "only one checkpoint is left"
    return f"step {step}"


# ---------------------------------------------------------------- models


def _save_model(name: str, folder: Path) -> None:
    save_model(folder / "model", "toy", {"name": name}, {"w": torch.ones(1000)}, {"README.md": b"a card"})


def _saved_model(folder: Path) -> str:
    saved = load_model(folder / "model", "toy")
    assert len(saved.tensors["w"]) == 1000
    return str(saved.config["name"])


def _saved_model_if_any(folder: Path) -> str:
    return _saved_model(folder) if (folder / "model").exists() else "none"


# ---------------------------------------------------------------- episodes


def _record(indices: tuple[int, ...], folder: Path) -> None:
    with StoreWriter.open(folder / "store", make_meta()) as writer:
        for index in indices:
            if index not in writer.indices:
                writer.add(index, make_episode(20, index), "train")


def _recorded(folder: Path) -> str:
    store = Store.open(folder / "store")
    for entry in store.entries:
        assert np.array_equal(store.episode(entry).frames, make_episode(20, entry.index).frames)
    return f"episodes {', '.join(str(entry.index) for entry in store.entries)}"


def _recorded_if_any(folder: Path) -> str:
    manifest = folder / "store" / "manifest.jsonl"
    return _recorded(folder) if manifest.exists() and b"\n" in manifest.read_bytes() else "none"


def _nothing(folder: Path) -> None:
    pass


CHECKPOINT = Save(
    "checkpoint", _two_checkpoints, partial(_save_checkpoint, 3, 3), _newest_checkpoint, "step 2", "step 3"
)
SAME_STEP = Save(
    "checkpoint of the same step",
    _two_checkpoints,
    partial(_save_checkpoint, 2, 4),
    _newest_checkpoint,
    "step 2",
    "step 4",
)
MODEL = Save("exported model", partial(_save_model, "old"), partial(_save_model, "new"), _saved_model, "old", "new")
FIRST_MODEL = Save("first exported model", _nothing, partial(_save_model, "new"), _saved_model_if_any, "none", "new")
EPISODE = Save(
    "episode", partial(_record, (0, 1)), partial(_record, (0, 1, 2)), _recorded, "episodes 0, 1", "episodes 0, 1, 2"
)
FIRST_EPISODE = Save("first episode", _nothing, partial(_record, (2,)), _recorded_if_any, "none", "episodes 2")
SAVES = (CHECKPOINT, MODEL, EPISODE, SAME_STEP, FIRST_MODEL, FIRST_EPISODE)


# ---------------------------------------------------------------- all calls of all saves


Ending = Callable[[Path, Save, int], tuple[int, list[Path]]]
"""Begins a save in a folder and ends it at the k-th call. Returns 0 if it was over before, and the folders that show
what may be left.
"""


def ended_everywhere(ending: Ending, work: Path, trials: int, seed: int) -> Outcome:
    """The first `trials` of all saves, each ended at the k-th file call for every k: there is no choice to draw."""
    failures: list[str] = []
    points: dict[str, int] = {}
    for save in SAVES[:trials]:
        for k in range(1, MOST_CALLS):
            folder = work / f"{save.name.replace(' ', '_')}_{k}"
            folder.mkdir()
            save.before(folder)
            code, left = ending(folder, save, k)
            failures += [f"{save.name}, call {k}: {what}" for place in left if (what := _wrong(save, place, code))]
            for place in {folder, *left}:
                shutil.rmtree(place)
            if code == 0:
                points[save.name] = k - 1
                break
        else:
            failures.append(f"{save.name}: no end after {MOST_CALLS} calls")
    return Outcome(sum(points.values()), tuple(failures), points)


def _wrong(save: Save, folder: Path, code: int) -> str:
    """What is wrong with what is left in a folder; empty if nothing is."""
    try:
        found, allowed = save.state(folder), (save.new,) if code == 0 else (save.old, save.new)
        if found not in allowed:
            return f"found {found}, expected {' or '.join(allowed)}"
        save.save(folder)
        found = save.state(folder)
        return "" if found == save.new else f"after the next save: found {found}, expected {save.new}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def crash(folder: Path, save: Save, k: int) -> tuple[int, list[Path]]:
    """The process ends as by SIGKILL, also in the midst of a `write`."""

    def until_then() -> None:
        _count_calls(k, lambda: os._exit(9))
        save.save(folder)

    return in_fork(until_then), [folder]


def lose_power(folder: Path, save: Save, k: int) -> tuple[int, list[Path]]:
    """The power fails and takes along whatever was not synced: all content without an fsync of its file, and either
    none or all of the names without an fsync of their folder. What a save that has returned leaves is the new state.
    """
    left = [folder.with_name(f"{folder.name}_{names}") for names in ("without_names", "with_names")]
    model = PowerModel(folder)

    def fail(code: int) -> None:
        for place, keep in zip(left, (False, True), strict=True):
            model.leave(place, keep_names=keep)
        os._exit(code)

    def until_then() -> None:
        model.watch()
        _count_calls(k, lambda: fail(9))
        save.save(folder)
        # Nothing may be missing now: a save that has returned is durable.
        fail(0)

    return in_fork(until_then), left


def _count_calls(k: int, end: Callable[[], object]) -> None:
    """From now on the k-th file call does not happen: `end` is called instead. A `write` counts twice: before it, and
    after half of it.
    """
    left = [k]

    def tick() -> None:
        left[0] -= 1
        if left[0] == 0:
            end()

    def ticking(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            tick()
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        setattr(os, name, ticking(getattr(os, name)))
    opened, fdopened = builtins.open, os.fdopen

    def open_file(*args: Any, **kwargs: Any) -> Any:
        tick()
        return _Torn(opened(*args, **kwargs), tick)

    builtins.open = open_file  # type: ignore[assignment]
    os.fdopen = lambda *args, **kwargs: _Torn(fdopened(*args, **kwargs), tick)  # type: ignore[assignment]


class _Torn:
    """A file of which a write may end halfway."""

    def __init__(self, file: Any, tick: Callable[[], None]) -> None:
        self._file, self._tick = file, tick

    def write(self, data: Any) -> int:
        self._tick()
        half = len(data) // 2
        self._file.write(data[:half])
        self._file.flush()
        self._tick()
        self._file.write(data[half:])
        return len(data)

    def truncate(self, size: int) -> int:
        self._tick()
        return int(self._file.truncate(size))

    def __enter__(self) -> _Torn:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Any:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


GUARANTEES = (
    Guarantee(
        "crash-points",
        "A save that ends at any of its file calls leaves the old state or the new one, whole, and no one in its way.",
        partial(ended_everywhere, crash),
        fast=3,
        long=6,
    ),
    Guarantee(
        "power-failure",
        "So does a power failure, which also takes what was written but not synced.",
        partial(ended_everywhere, lose_power),
        fast=3,
        long=6,
    ),
)
