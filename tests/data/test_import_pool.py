"""Importing in several processes: the store is the same, and nothing is left behind where one dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import exports
import numpy as np
import pytest
from recordings import is_running, wait_until
from videos import moving_frames, write_video

from vqvideo.data import import_jobs, import_pool
from vqvideo.data.config import ImportConfig
from vqvideo.data.export import export_store
from vqvideo.data.export_config import ExportConfig
from vqvideo.data.importing import import_data
from vqvideo.data.store import Store
from vqvideo.errors import InputError


def imported(source: Path, name: str = "store", **options: Any) -> Store:
    given = {"out": source.parent / name, "frame_size": "32x48", "steps": 9} | options
    return Store.open(import_data(ImportConfig(source, **given)))


@pytest.fixture
def small_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_jobs, "FRAMES", 15)


def films(folder: Path) -> Path:
    write_video(folder / "a.mp4", moving_frames(45), codec="libx264", pixels="yuv444p")
    write_video(folder / "b.mkv", moving_frames(14))
    return folder


def annotated(folder: Path) -> Path:
    for name, count in (("a", 45), ("b", 14)):
        write_video(folder / f"{name}.mkv", moving_frames(count))
        np.savez(folder / f"{name}.npz", action=np.arange(count) / 50, reward=np.ones(count))
    return folder


def folders(folder: Path) -> Path:
    for name, count in (("a", 45), ("b", 14)):
        (folder / name).mkdir(parents=True)
        np.save(folder / name / "frames.npy", moving_frames(count))
        np.save(folder / name / "actions.npy", np.arange(count - 1) / 50)
    return folder


def archives(folder: Path) -> Path:
    folder.mkdir()
    for name, count in (("a", 45), ("b", 14)):
        done = np.arange(count) % 12 == 11
        np.savez(folder / f"{name}.npz", image=moving_frames(count), action=np.arange(count) / 50, done=done)
    return folder


def exported(format: str) -> Any:
    def make(folder: Path) -> Path:
        store = exports.make(folder.parent / f"{format}_source", size=(32, 48))
        return export_store(ExportConfig(store.path, format, folder, lossless=True))

    make.__name__ = format
    return make


@pytest.mark.usefixtures("small_jobs")
@pytest.mark.parametrize(
    "make",
    [films, annotated, folders, archives, exported("minari"), exported("lerobot")],
    ids=lambda make: make.__name__,
)
def test_two_processes_make_the_store_that_one_makes(make: Any, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    pytest.importorskip("pyarrow")
    source = make(tmp_path / "game")
    one, two = imported(source, "one", workers=1), imported(source, "two", workers=2)
    assert len(one.entries) >= 4
    assert one.digest == two.digest
    assert [entry.sha256 for entry in one.entries] == [entry.sha256 for entry in two.entries]
    assert (one.path / "sources.jsonl").read_bytes() == (two.path / "sources.jsonl").read_bytes()


@pytest.mark.usefixtures("small_jobs")
def test_what_is_broken_in_one_process_is_told_by_the_main_one(tmp_path: Path) -> None:
    source = folders(tmp_path / "game")
    broken = moving_frames(45).astype(np.float32) / 255
    broken[33] = 7
    np.save(source / "a" / "frames.npy", broken)
    with pytest.raises(InputError, match=r"a: frames, frame 33: float32 from 7 to 7, expected 0 to 1"):
        imported(source, workers=2)
    store = imported(source, workers=2, skip_broken=True)
    assert [entry.length for entry in store.entries] == [9, 9, 9, 9, 3]
    assert not list(store.path.rglob(".tmp*"))


class Dying:
    """A recording whose process is killed while it decodes it."""

    def __init__(self, recording: Any, main: int) -> None:
        self.facts, self.ends, self.main = recording.facts, (), main

    def moments(self, first: int = 0) -> Any:
        assert os.getpid() != self.main
        os.kill(os.getpid(), signal.SIGKILL)
        yield


@pytest.mark.usefixtures("small_jobs")
def test_a_process_that_dies_ends_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vqvideo.data.formats.videos import Videos

    opened = Videos.open
    monkeypatch.setattr(Videos, "open", lambda self, name: Dying(opened(self, name), os.getpid()))
    with pytest.raises(InputError, match=r"a process that decodes died, .*--workers 1"):
        imported(films(tmp_path / "game"), workers=2)


@pytest.mark.usefixtures("small_jobs")
def test_closing_ends_the_processes_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    submit = import_pool.ProcessPoolExecutor.submit

    def noting(self: Any, *args: Any) -> Any:
        future = submit(self, *args)
        started.extend(self._processes)
        return future

    monkeypatch.setattr(import_pool.ProcessPoolExecutor, "submit", noting)
    from vqvideo.data.store import StoreWriter

    add = StoreWriter.add

    def stopping(self: Any, index: int, *args: Any) -> None:
        add(self, index, *args)
        raise KeyboardInterrupt

    monkeypatch.setattr(StoreWriter, "add", stopping)
    source = films(tmp_path / "game")
    with pytest.raises(KeyboardInterrupt):
        imported(source, workers=2)
    assert started
    wait_until(lambda: not any(map(is_running, started)), "the processes to end")
    store = tmp_path / "store"
    assert len(list((store / "episodes").iterdir())) == 1
    monkeypatch.undo()
    monkeypatch.setattr(import_jobs, "FRAMES", 15)
    assert imported(source, workers=2).digest == imported(source, "whole").digest
