"""One write, ended at each of its file calls in turn, by a crash of the process or by a failure of the power: the old
state is there or the new one, whole, and the next write succeeds.
"""

from __future__ import annotations

import builtins
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stores import make_episode, make_meta

from reliability.outcome import Guarantee, Outcome
from reliability.power import PowerModel
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError
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
"""Of one write; it has far fewer."""
CALLS = ("open", "mkdir", "link", "fsync", "rename", "replace", "chmod", "unlink", "rmdir", "ftruncate")
"""Functions of `os` that change what is on the disk, or make it durable."""


class Write:
    """Something that is written: how, and what must be there afterwards."""

    name = ""

    def before(self, folder: Path) -> None:
        """Puts the old state into an empty folder."""

    def write(self, folder: Path) -> None:
        """Writes the new one."""

    def state(self, folder: Path) -> str:
        """Reads, as the next run does, and names what is there. InputError if that is nothing that may be used."""
        raise NotImplementedError

    old = "old"
    new = "new"


class Checkpoint(Write):
    """A third checkpoint, after which the first is removed."""

    name, old, new = "checkpoint", "step 2", "step 3"

    def before(self, folder: Path) -> None:
        for step in (1, 2):
            save_training(folder, step, _training_state(step), keep=2)

    def write(self, folder: Path) -> None:
        files.clean_temporaries(folder)
        save_training(folder, 3, _training_state(3), keep=2)

    def state(self, folder: Path) -> str:
        # A run that goes on clears up before it reads.
        files.clean_temporaries(folder)
        state = latest_training(folder)
        if state is None:
            raise InputError(f"{folder}: no checkpoint")
        step = state.progress["step"]
        whole = all(torch.equal(part["w"], torch.full((3,), float(step))) for part in (state.model, state.average))
        others = len(training_checkpoints(folder))
        return f"step {step}" if whole and others >= 2 else f"step {step}, weights whole: {whole}, {others} kept"


class SameStep(Checkpoint):
    """A checkpoint in the place of one of the same step."""

    name, old, new = "checkpoint of the same step", "step 2", "step 4"

    def write(self, folder: Path) -> None:
        files.clean_temporaries(folder)
        save_training(folder, 2, _training_state(4), keep=2)


class Model(Write):
    """An exported model in the place of an older one."""

    name = "exported model"

    def before(self, folder: Path) -> None:
        self._save(folder, "old")

    def write(self, folder: Path) -> None:
        self._save(folder, "new")

    def state(self, folder: Path) -> str:
        saved = load_model(folder / "model", "toy")
        return str(saved.config["name"]) if len(saved.tensors["w"]) == 1000 else "half"

    def _save(self, folder: Path, name: str) -> None:
        save_model(folder / "model", "toy", {"name": name}, {"w": torch.ones(1000)}, {"README.md": b"a card"})


class FirstModel(Model):
    """An exported model where there was none."""

    name, old, new = "first exported model", "none", "new"

    def before(self, folder: Path) -> None:
        pass

    def state(self, folder: Path) -> str:
        return super().state(folder) if (folder / "model").exists() else "none"


class NewEpisode(Write):
    """The third episode of a store, in a recording that goes on after two."""

    name, old, new = "episode", "episodes 0, 1", "episodes 0, 1, 2"

    def before(self, folder: Path) -> None:
        with StoreWriter.open(folder / "store", make_meta()) as writer:
            for index in (0, 1):
                writer.add(index, make_episode(20, index), "train")

    def write(self, folder: Path) -> None:
        with StoreWriter.open(folder / "store", make_meta()) as writer:
            if 2 not in writer.indices:
                writer.add(2, make_episode(20, 2), "train")

    def state(self, folder: Path) -> str:
        store = Store.open(folder / "store")
        store.verify()
        for entry in store.entries:
            if not np.array_equal(store.episode(entry).frames, make_episode(20, entry.index).frames):
                return f"episode {entry.index} is another"
        return f"episodes {', '.join(str(entry.index) for entry in store.entries)}"


class FirstEpisode(NewEpisode):
    """The first episode of a store that does not exist yet."""

    name, old, new = "first episode", "none", "episodes 2"

    def before(self, folder: Path) -> None:
        pass

    def state(self, folder: Path) -> str:
        manifest = folder / "store" / "manifest.jsonl"
        return super().state(folder) if manifest.exists() and b"\n" in manifest.read_bytes() else "none"


class SingleFile(Write):
    """A file such as a run's settings, in the place of an older one."""

    name = "single file"

    def before(self, folder: Path) -> None:
        files.write_file(folder / "file", b"old" * 1000)

    def write(self, folder: Path) -> None:
        files.write_file(folder / "file", b"new" * 1000)

    def state(self, folder: Path) -> str:
        text = (folder / "file").read_bytes().decode()
        return text[:3] if text in ("old" * 1000, "new" * 1000) else "a mixture"


WRITES: tuple[type[Write], ...] = (Checkpoint, SameStep, Model, FirstModel, NewEpisode, FirstEpisode, SingleFile)


def crash_everywhere(work: Path, trials: int, seed: int) -> Outcome:
    """A process that ends, as by SIGKILL, at the k-th file call, for every k: also in the midst of a `write`."""
    return _everywhere(work, _crash)


def lose_power_everywhere(work: Path, trials: int, seed: int) -> Outcome:
    """The power fails at the k-th file call, for every k, and takes along whatever was not synced: all content without
    an fsync of its file, and either none or all of the names without an fsync of their folder. What a write that has
    returned leaves is the new state.
    """
    return _everywhere(work, _lose_power)


# ---------------------------------------------------------------- all calls of all writes


Crash = Callable[[Path, Write, int], tuple[int, list[Path]]]
"""Begins a write in a folder and ends it at the k-th call. Returns 0 if it was over before, and the folders that show
what may be left.
"""


def _everywhere(work: Path, crash: Crash) -> Outcome:
    failures: list[str] = []
    points: dict[str, float] = {}
    for kind in WRITES:
        write = kind()
        for k in range(1, MOST_CALLS):
            folder = work / f"{write.name.replace(' ', '_')}_{k}"
            folder.mkdir()
            write.before(folder)
            code, left = crash(folder, write, k)
            wrong = [_wrong(write, place, code) for place in left]
            failures += [f"{write.name}, call {k}: {what}" for what in wrong if what]
            for place in {folder, *left}:
                shutil.rmtree(place)
            if code == 0:
                points[f"{write.name}, points"] = k - 1
                break
        else:
            failures.append(f"{write.name}: no end after {MOST_CALLS} calls")
    return Outcome(int(sum(points.values())), tuple(failures), points)


def _wrong(write: Write, folder: Path, code: int) -> str:
    """What is wrong with what is left in a folder; empty if nothing is."""
    try:
        found = write.state(folder)
        allowed = (write.new,) if code == 0 else (write.old, write.new)
        if found not in allowed:
            return f"found {found}, expected {' or '.join(allowed)}"
        write.write(folder)
        found = write.state(folder)
        return "" if found == write.new else f"after the next write: found {found}, expected {write.new}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _crash(folder: Path, write: Write, k: int) -> tuple[int, list[Path]]:
    def until_then() -> None:
        _count_calls(k, lambda: os._exit(9))
        write.write(folder)

    return _in_fork(until_then), [folder]


def _lose_power(folder: Path, write: Write, k: int) -> tuple[int, list[Path]]:
    left = [folder.with_name(f"{folder.name}_{names}") for names in ("without_names", "with_names")]
    model = PowerModel(folder)

    def fail(code: int) -> None:
        for place, keep in zip(left, (False, True), strict=True):
            model.leave(place, keep_names=keep)
        os._exit(code)

    def until_then() -> None:
        model.watch()
        _count_calls(k, lambda: fail(9))
        write.write(folder)
        # Nothing may be missing now: a write that has returned is durable.
        fail(0)

    return _in_fork(until_then), left


def _in_fork(action: Callable[[], object]) -> int:
    """Exit code of a child that does something: 1 if it raised."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        action()
        os._exit(0)
    except BaseException:
        os._exit(1)


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


def _training_state(step: int) -> TrainingState:
    tensors = {"w": torch.full((3,), float(step))}
    return TrainingState(tensors, {}, tensors, {"step": step})


GUARANTEES = (
    Guarantee(
        "crash-points",
        "A write that ends at any of its file calls leaves the old state or the new one, whole, and no one in its way.",
        crash_everywhere,
        fast=1,
        long=1,
    ),
    Guarantee(
        "power-failure",
        "So does a power failure, which also takes what was written but not synced.",
        lose_power_everywhere,
        fast=1,
        long=1,
    ),
)
