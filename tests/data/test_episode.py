"""One episode: what is refused, and that its file gives back what was put in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from stores import DISCRETE, episode_to_bytes, make_episode

from vqvideo.data.episode import CHUNK, Episode, EpisodeReader
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

SPACE = ActionSpace.from_json(DISCRETE)
SIZE = (4, 6)
FIELDS = ("frames", "actions", "rewards", "terminated", "truncated")


def same(one: Episode, two: Episode) -> bool:
    equal = all(np.array_equal(getattr(one, f), getattr(two, f)) for f in FIELDS)
    return equal and all(getattr(one, f).dtype == getattr(two, f).dtype for f in FIELDS) and one.seed == two.seed


@pytest.mark.parametrize("length", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 40])
def test_an_episode_survives_its_file(tmp_path: Path, length: int) -> None:
    episode = make_episode(length, seed=length)
    episode.validate(SPACE, SIZE)
    (tmp_path / "e").write_bytes(episode_to_bytes(episode))
    reader = EpisodeReader(tmp_path / "e")
    assert reader.length == episode.length == length
    assert same(reader.episode(), episode)


def test_equal_episodes_make_equal_files() -> None:
    assert episode_to_bytes(make_episode()) == episode_to_bytes(make_episode())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40), st.integers(1, 41))
def test_any_window_of_frames_is_what_was_recorded(
    tmp_path_factory: pytest.TempPathFactory, start: int, size: int
) -> None:
    episode, file = make_episode(40), tmp_path_factory.mktemp("e") / "e"
    file.write_bytes(episode_to_bytes(episode))
    stop = min(41, start + size)
    assert np.array_equal(EpisodeReader(file).frames(start, stop), episode.frames[start:stop])


def test_a_window_decodes_only_the_chunks_that_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "e").write_bytes(episode_to_bytes(make_episode(100)))
    reader = EpisodeReader(tmp_path / "e")
    decoded: list[int] = []
    decompress = zstandard.decompress
    monkeypatch.setattr(zstandard, "decompress", lambda blob: (decoded.append(len(blob)), decompress(blob))[1])
    reader.frames(15, 33)
    assert len(decoded) == 3
    reader.frames(16, 32)
    assert decoded[3:] == decoded[1:2]


@pytest.mark.parametrize("window", [(-1, 3), (3, 3), (5, 3), (0, 22), (21, 22)])
def test_frames_that_it_does_not_have_are_refused(tmp_path: Path, window: tuple[int, int]) -> None:
    (tmp_path / "e").write_bytes(episode_to_bytes(make_episode(20)))
    with pytest.raises(InputError, match=r"it has 0\.\.21"):
        EpisodeReader(tmp_path / "e").frames(*window)


# ---------------------------------------------------------------- what is refused

E = make_episode(5)
F = E.frames
END = E.terminated


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": F / 255}, r"frames: found float64 \(6, 4, 6, 3\), expected uint8 \(6, 4, 6, 3\)"),
        ({"frames": F.tolist()}, "frames: found list"),
        ({"frames": np.moveaxis(F, 3, 1)}, r"frames: found uint8 \(6, 3, 4, 6\), expected uint8 \(6, 4, 6, 3\)"),
        ({"frames": F[..., 0]}, r"frames: found uint8 \(6, 4, 6\)"),
        ({"frames": F[:1], **{name: getattr(E, name)[:0] for name in FIELDS[1:]}}, "frames: 1, expected 2"),
        ({"frames": F[:5]}, r"actions: found float64 \(5, 1\), expected float64 \(4, 1\)"),
        ({"actions": E.actions.astype(np.int64)}, r"actions: found int64 \(5, 1\), expected float64"),
        (
            {"actions": np.full((5, 1), 5.0)},
            r"actions\[0\]: column 0 is 5.0, expected a whole number from 0 to 4",
        ),
        ({"actions": np.full((5, 1), 0.5)}, "column 0 is 0.5, expected a whole number"),
        ({"actions": np.full((5, 1), np.nan)}, "column 0 is nan"),
        ({"rewards": np.array([0, 0, np.nan, 0, 0], np.float32)}, "rewards: step 2 is nan"),
        ({"rewards": E.rewards.astype(np.float64)}, r"rewards: found float64 \(5,\), expected float32 \(5,\)"),
        ({"terminated": END[::-1]}, "terminated is True at step 0 of 5"),
        ({"truncated": END.astype(np.int8)}, r"truncated: found int8 \(5,\), expected bool"),
    ],
)
def test_an_impossible_episode_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_episode(5, **change).validate(SPACE, SIZE)


# ---------------------------------------------------------------- files that are none


def _tensors(length: int = 40) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    data = episode_to_bytes(make_episode(length))
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["vqvideo"]
    return dict(load(data)), json.loads(header)


def _open(tmp_path: Path, tensors: dict[str, np.ndarray], header: Any) -> EpisodeReader:
    (tmp_path / "e").write_bytes(save(tensors, {"vqvideo": json.dumps(header)}))
    return EpisodeReader(tmp_path / "e")


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    tensors, header = _tensors()
    assert _open(tmp_path, tensors, header).length == 40
    with pytest.raises(InputError, match=f"{tmp_path / 'e'}: format version 2, this version reads 1"):
        _open(tmp_path, tensors, header | {"format_version": 2})
    with pytest.raises(InputError, match=f"{tmp_path / 'e'}: header.seed is '0', expected int"):
        _open(tmp_path, tensors, header | {"seed": "0"})


def test_a_chunk_that_would_fill_the_memory_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = zstandard.compress(bytes(2**26))
    tensors = load(episode_to_bytes(make_episode(3)))
    tensors |= {"frames": np.frombuffer(bomb, np.uint8), "chunk_offsets": np.array([0, len(bomb)])}
    metadata = {"vqvideo": json.dumps({"format_version": 1, "shape": [4, 8, 8, 3], "actions": 2, "seed": 0})}
    (tmp_path / "bomb.safetensors").write_bytes(save(tensors, metadata=metadata))
    reader = EpisodeReader(tmp_path / "bomb.safetensors")
    monkeypatch.setattr(zstandard, "decompress", lambda blob: pytest.fail("decoded"))
    with pytest.raises(InputError, match="chunk 0 declares 67108864 bytes, expected at most 3072"):
        reader.frames(0, 1)


def test_a_damaged_chunk_is_refused(tmp_path: Path) -> None:
    tensors, header = _tensors(10)
    tensors |= {"frames": np.frombuffer(b"not zstd", np.uint8), "chunk_offsets": np.array([0, 8])}
    with pytest.raises(InputError, match="not a readable episode"):
        _open(tmp_path, tensors, header).frames(0, 1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\xff" * 100,
        (2**63).to_bytes(8, "little"),
        (99 * 10**6).to_bytes(8, "little") + b"{" * 1000,
    ],
)
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "e").write_bytes(content)
    with pytest.raises(InputError, match="not a readable episode"):
        EpisodeReader(tmp_path / "e")


def test_another_safetensors_file_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "e").write_bytes(save({"frames": np.zeros(3)}))
    with pytest.raises(InputError, match="not one of our episodes"):
        EpisodeReader(tmp_path / "e")
    with pytest.raises(InputError, match="not a readable episode"):
        EpisodeReader(tmp_path / "nothing")
