"""Episodes written while their frames come: the same files, the same promises, few frames in memory."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save
from stores import episode_to_bytes, make_episode, make_meta

from vqvideo.data.episode import CHUNK, EpisodeReader, Steps
from vqvideo.data.episode_writer import EpisodeWriter, WrittenEpisode
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError
from vqvideo.storage.files import DiskError


def written(folder: Path, length: int, parts: int = 7, **changes: Any) -> WrittenEpisode:
    """`make_episode(length)`, a few frames at a time."""
    episode = make_episode(length)
    with EpisodeWriter(folder) as writer:
        for start in range(0, length + 1, parts):
            writer.add_frames(episode.frames[start : start + parts])
        return writer.finish(episode.steps._replace(**changes), episode.seed)


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, 40, 200])
@pytest.mark.parametrize("parts", [1, 7, CHUNK, 1000])
def test_frames_that_come_in_parts_give_the_file_of_the_whole_episode(tmp_path: Path, length: int, parts: int) -> None:
    found = written(tmp_path, length, parts)
    assert found.path.read_bytes() == episode_to_bytes(make_episode(length))
    assert list(tmp_path.iterdir()) == [found.path], "nothing else is left"
    np.testing.assert_array_equal(EpisodeReader(found.path).episode().frames, make_episode(length).frames)


@pytest.mark.parametrize("length", [1, 40, 1000])
def test_the_file_is_the_one_that_safetensors_makes_of_its_tensors(tmp_path: Path, length: int) -> None:
    data = written(tmp_path, length).path.read_bytes()
    metadata = data[8 : 8 + int.from_bytes(data[:8], "little")].split(b'"vqvideo":"')[1].split(b'}"')[0] + b"}"
    assert save(load(data), {"vqvideo": metadata.decode().replace("\\", "")}) == data


def test_a_store_takes_it_as_it_takes_the_whole_episode(tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        with StoreWriter.open(tmp_path / name, make_meta()) as writer:
            writer.add(3, make_episode(30) if name == "whole" else written(writer.folder, 30), "train")
    assert Store.open(tmp_path / "parts").digest == Store.open(tmp_path / "whole").digest
    Store.open(tmp_path / "parts").verify()
    assert [path.name for path in (tmp_path / "parts" / "episodes").iterdir()] == ["000003.safetensors"]


def test_memory_does_not_grow_with_the_episode(tmp_path: Path) -> None:
    def peak(frames: int) -> int:
        steps = Steps(np.zeros((frames - 1, 1)), np.zeros(frames - 1, np.float32), *np.zeros((2, frames - 1), bool))
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
        tracemalloc.start()
        with EpisodeWriter(tmp_path) as writer:
            for _ in range(frames // 64):
                writer.add_frames(noise)
            size = writer.finish(steps, 0).bytes
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert size > frames * 64 * 64 * 3, "noise cannot be compressed"
        return most

    assert peak(64 * 64) < peak(64 * 32) + 2**20


def test_what_no_recording_can_hold_is_refused_when_the_store_takes_it(tmp_path: Path) -> None:
    size = r"episode 0: frames: found uint8 \(21, 4, 6, 3\), expected uint8 \(21, 6, 4, 3\)"
    action = r"episode 0: actions\[0\]: column 0 is 7.0"
    sevens = np.full((20, 1), 7.0)
    for name, meta, changes, message in (
        ("a", make_meta(frame_size=(6, 4)), {}, size),
        ("b", make_meta(), {"actions": sevens}, action),
    ):
        with StoreWriter.open(tmp_path / name, meta) as writer:
            episode = written(writer.folder, 20, **changes)
            with pytest.raises(InputError, match=message):
                writer.add(0, episode, "train")
            assert not writer.indices
        assert not list((tmp_path / name / "episodes").iterdir())


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((4, 6, 3), np.uint8), r"found uint8 \(4, 6, 3\), expected uint8 \(n, h, w, 3\)"),
        (np.zeros((2, 4, 6, 3)), "found float64"),
        ([], "found list"),
        (np.zeros((2, 4, 7, 3), np.uint8), r"size changed from \(4, 6, 3\) to \(4, 7, 3\)"),
    ],
)
def test_frames_that_are_none_are_refused_at_once(tmp_path: Path, frames: Any, message: str) -> None:
    with EpisodeWriter(tmp_path) as writer:
        writer.add_frames(np.zeros((1, 4, 6, 3), np.uint8))
        with pytest.raises(InputError, match=message):
            writer.add_frames(frames)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": np.zeros(19, np.float32)}, r"rewards: found float32 \(19,\), expected float32 \(20,\)"),
        ({"actions": np.zeros(20)}, r"actions: found float64 \(20,\), expected float64 \(20, 1\)"),
        ({"actions": np.zeros((20, 1), np.int32)}, "actions: found int32"),
    ],
)
def test_steps_that_do_not_fit_the_frames_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        written(tmp_path, 20, **change)
    with EpisodeWriter(tmp_path) as writer, pytest.raises(InputError, match="frames: found none"):
        writer.finish(make_episode().steps, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("memory", [0, 2**24])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vqvideo.data.episode_writer._MEMORY", memory or 1)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match="No space left on device"):
        written(tmp_path, 100)
    assert not list(tmp_path.iterdir())


def test_an_episode_that_was_written_and_not_added_is_gone_when_the_store_closes(tmp_path: Path) -> None:
    with StoreWriter.open(tmp_path, make_meta()) as writer:
        left = written(writer.folder, 20).path
        assert left.is_file()
        writer.add(0, written(writer.folder, 5), "train")
    assert not left.exists()
    assert len(Store.open(tmp_path).entries) == 1
