"""Clips: every window of an episode, no boundary crossed, read again from memory."""

from __future__ import annotations

import copy
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import make_episode, make_store
from torch.utils.data import DataLoader

from vqvideo.data.clips import Clips, _evenly
from vqvideo.errors import InputError
from vqvideo.training.loader import StepBatches

# ---------------------------------------------------------------- clips


def starts_of(clips: Clips, indices: np.ndarray) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for index in indices:
        episode, start = clips.locate(int(index))
        found.setdefault(episode, []).append(start)
    return found


@pytest.mark.parametrize("cache_gib", [0.0, 4.0, 2000 / 2**30])
def test_every_window_comes_once_with_what_happened_in_it(tmp_path: Path, cache_gib: float) -> None:
    clips = Clips(make_store(tmp_path, [8, 3, 20]), "train", 5, cache_gib)
    assert len(clips) == 5 + 0 + 17
    seen = []
    for i in range(len(clips)):
        clip = clips[i]
        start, seed = (int(n) for n in clip["frames"][0, :2, 0, 0])
        seen.append((seed, start))
        episode = make_episode({0: 8, 2: 20}[seed], seed)
        assert np.array_equal(clip["frames"].movedim(1, -1), episode.frames[start : start + 5])
        assert np.array_equal(clip["actions"], episode.actions[start : start + 4].astype(np.float32))
        assert np.array_equal(clip["rewards"], episode.rewards[start : start + 4])
        assert np.array_equal(clip["terminated"], episode.terminated[start : start + 4])
    assert seen == [(0, start) for start in range(5)] + [(2, start) for start in range(17)]


def test_clips_have_the_promised_types(tmp_path: Path) -> None:
    clip = Clips(make_store(tmp_path), "train", 5)[0]
    assert {name: (tuple(value.shape), value.dtype) for name, value in clip.items()} == {
        "frames": ((5, 3, 4, 6), torch.uint8),
        "actions": ((4, 1), torch.float32),
        "rewards": ((4,), torch.float32),
        "terminated": ((4,), torch.bool),
    }


@pytest.mark.parametrize("cache_gib", [0.0, 4.0])
def test_changing_a_clip_does_not_change_the_next_epoch(tmp_path: Path, cache_gib: float) -> None:
    clips = Clips(make_store(tmp_path), "train", 5, cache_gib)
    before = {name: value.clone() for name, value in clips[3].items()}
    for value in clips[3].values():
        value.zero_()
    assert all(torch.equal(value, before[name]) for name, value in clips[3].items())


def test_the_cache_stays_within_its_memory(tmp_path: Path) -> None:
    size = 21 * 4 * 6 * 3
    clips = Clips(make_store(tmp_path, [20] * 5), "train", 5, cache_gib=2.5 * size / 2**30)
    for i in range(len(clips)):
        clips[i]
    assert sum(frames.nbytes for frames, _ in clips._cache.values()) == 2 * size


def test_a_second_pass_over_cached_clips_opens_no_file(tmp_path: Path) -> None:
    clips = Clips(make_store(tmp_path, [6] * 80), "train", 5)
    first = [clips[i] for i in range(len(clips))]
    shutil.rmtree(tmp_path / "episodes")
    for index in np.random.default_rng(0).permutation(len(clips)).tolist():
        assert all(torch.equal(value, first[index][name]) for name, value in clips[index].items())


def test_an_episode_of_exactly_the_clip_length_is_one_clip(tmp_path: Path) -> None:
    clips = Clips(make_store(tmp_path, [8]), "train", 9)
    assert len(clips) == 1
    assert clips[0]["terminated"].tolist() == [False] * 7 + [True]


def test_shorter_episodes_are_counted_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = make_store(tmp_path, [8, 3, 20])
    with caplog.at_level(logging.INFO):
        Clips(store, "train", 4)
    assert not caplog.text
    with caplog.at_level(logging.INFO):
        Clips(store, "train", 5)
    assert f"{tmp_path}: 1 of 3 episodes in split train are shorter than a clip of 5 frames: left out" in caplog.text


@pytest.mark.parametrize("damage", ["missing", "longer"])
def test_a_missing_or_changed_file_is_found_before_the_first_clip(tmp_path: Path, damage: str) -> None:
    store = make_store(tmp_path)
    file = tmp_path / store.entries[-1].file
    file.unlink() if damage == "missing" else file.write_bytes(file.read_bytes() + b"0")
    with pytest.raises(InputError, match=r"000002.safetensors: (no such file|\d+ bytes, but \d+ were recorded)"):
        Clips(store, "train", 5)


def test_no_clip_at_all_is_an_error_that_names_the_longest_episode(tmp_path: Path) -> None:
    store = make_store(tmp_path, [8, 3])
    with pytest.raises(
        InputError, match="has 0 clips of length 17 in split train; the longest of its 2 episodes has 9"
    ):
        Clips(store, "train", 17)
    with pytest.raises(InputError, match="has 0 clips of length 5 in split held_out; the longest of its 0 episodes"):
        Clips(store, "held_out", 5)
    with pytest.raises(InputError, match="clip length 0, expected at least 1"):
        Clips(store, "train", 0)


@pytest.mark.parametrize("index", [-1, 51])
def test_an_index_outside_is_refused(tmp_path: Path, index: int) -> None:
    clips = Clips(make_store(tmp_path), "train", 5)
    assert len(clips) == 51
    with pytest.raises(IndexError, match=f"clip {index} of 51"):
        clips[index]


def test_workers_and_copies_see_what_the_main_process_sees(tmp_path: Path) -> None:
    clips = Clips(make_store(tmp_path), "train", 5, cache_gib=0.0)
    expected = [clips[i]["frames"] for i in range(len(clips))]
    assert torch.equal(copy.deepcopy(clips)[3]["frames"], expected[3])
    batches = StepBatches(len(clips), 17, 0, stop=3)
    loader = DataLoader(clips, batch_sampler=batches, num_workers=2)
    for indices, batch in zip(batches, loader, strict=True):
        assert torch.equal(batch["frames"], torch.stack([expected[i] for i in indices]))


# ---------------------------------------------------------------- spread


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.data())
def test_evenly_spread_numbers_differ_and_reach_both_ends(size: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, size))
    numbers = _evenly(size, count)
    assert len(set(numbers.tolist())) == count
    assert count < 2 or (numbers[0], numbers[-1]) == (0, size - 1)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 9, 11, 30, 69, 100])
def test_spread_takes_many_episodes_and_avoids_overlap(tmp_path: Path, count: int) -> None:
    clips = Clips(make_store(tmp_path, [14, 29, 29, 9]), "train", 5)
    indices = clips.spread(count)
    assert len(indices) == min(count, len(clips))
    assert np.array_equal(indices, np.unique(indices))
    assert np.array_equal(indices, clips.spread(count))
    starts = starts_of(clips, indices)
    assert len(starts) == min(count, 4)
    if count <= 3 + 6 + 6 + 2:
        assert all(np.diff(found).min(initial=5) >= 5 for found in starts.values())
