"""Cached codes: aligned with actions and rewards, complete to the last frame, never stale."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from stores import flip, make_episode, make_meta, make_store
from torch import Tensor

from vqvideo.data.codes import (
    CodeArrays,
    CodeClips,
    cached_codes,
    encode_episode,
    encode_split,
    segment_starts,
)
from vqvideo.data.config import SegmentConfig
from vqvideo.data.episode import Episode
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError
from vqvideo.storage import files

CPU = torch.device("cpu")


class IndexTokenizer:
    """A latent step's single code is the number of its last frame, which frames of `make_episode` show in red."""

    grid = (1, 1)
    codebook_size = 256

    def __init__(self, stride: int) -> None:
        self.stride = stride
        self.encoded = 0

    @property
    def quantizer(self) -> IndexTokenizer:
        return self

    def clip_length(self, latent_steps: int) -> int:
        return 1 + self.stride * (latent_steps - 1)

    def encode(self, frames: Tensor) -> Tensor:
        self.encoded += len(frames)
        return frames[:, :: self.stride, 0, :1, :1].long()


def counting_episode(length: int) -> Episode:
    """Action t is t, reward t is t, and the episode terminates."""
    return make_episode(length, actions=np.arange(length, dtype=np.float64)[:, None])


# ---------------------------------------------------------------- alignment


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("length", [4, 9, 20, 37])
def test_each_latent_step_has_the_actions_rewards_and_end_that_led_to_it(stride: int, length: int) -> None:
    cfg = SegmentConfig(latent_steps=5, every=3)
    arrays = encode_episode(IndexTokenizer(stride), counting_episode(length), cfg, CPU)
    firsts = set(arrays.starts[:-1].tolist())
    for k, frame in enumerate(arrays.codes[:, 0, 0].tolist()):
        if k in firsts:
            assert not arrays.actions[k].any()
            assert arrays.rewards[k] == 0
            assert not arrays.terminated[k]
            continue
        led_here = list(range(frame - stride, frame))
        assert arrays.codes[k - 1, 0, 0] == frame - stride
        assert arrays.actions[k, :, 0].tolist() == led_here
        assert arrays.rewards[k] == sum(led_here)
        assert arrays.terminated[k] == (frame == length)


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("length", [4, 9, 20, 37])
def test_the_last_segment_ends_with_the_last_frame(stride: int, length: int) -> None:
    arrays = encode_episode(
        IndexTokenizer(stride),
        counting_episode(length),
        SegmentConfig(5, 7),
        CPU,
    )
    assert arrays.codes[-1, 0, 0] == length
    assert arrays.terminated[-1]


def test_segments_begin_at_every_phase_of_the_stride() -> None:
    assert segment_starts(frames=30, length=9, every=7) == [0, 7, 14, 21]
    assert segment_starts(frames=33, length=9, every=7) == [0, 7, 14, 21, 24]
    assert segment_starts(frames=9, length=9, every=7) == [0]


def test_an_episode_shorter_than_a_segment_makes_one_shorter_segment_at_each_end() -> None:
    arrays = encode_episode(IndexTokenizer(2), counting_episode(5), SegmentConfig(13, 7), CPU)
    assert arrays.codes[:, 0, 0].tolist() == [0, 2, 4, 1, 3, 5]
    assert arrays.starts.tolist() == [0, 3, 6]


def test_arrays_have_the_promised_types(tmp_path: Path) -> None:
    arrays = encode_split(IndexTokenizer(2), make_store(tmp_path), "train", SegmentConfig(5, 3), CPU)
    total = int(arrays.starts[-1])
    assert (arrays.codes.shape, arrays.codes.dtype) == ((total, 1, 1), np.int32)
    assert (arrays.actions.shape, arrays.actions.dtype) == ((total, 2, 1), np.float32)
    assert (arrays.rewards.shape, arrays.rewards.dtype) == ((total,), np.float32)
    assert (arrays.terminated.shape, arrays.terminated.dtype) == ((total,), np.bool_)


def test_a_split_joins_its_episodes_in_order(tmp_path: Path) -> None:
    store, cfg = make_store(tmp_path, [20, 1, 12]), SegmentConfig(5, 3)
    whole = encode_split(IndexTokenizer(2), store, "train", cfg, CPU)
    parts = [encode_episode(IndexTokenizer(2), store.episode(store.entries[i]), cfg, CPU) for i in (0, 2)]
    for name in ("codes", "actions", "rewards", "terminated"):
        assert np.array_equal(getattr(whole, name), np.concatenate([getattr(part, name) for part in parts]))
    segments = np.concatenate([np.diff(part.starts) for part in parts])
    assert np.array_equal(np.diff(whole.starts), segments)


def test_a_split_without_long_enough_episodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no episode of at least 4 steps in split train: record longer ones"):
        encode_split(IndexTokenizer(4), make_store(tmp_path, [3, 2]), "train", SegmentConfig(), CPU)


@pytest.mark.parametrize("settings", [{"latent_steps": 1}, {"every": 0}])
def test_impossible_segments_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match="latent_steps is at least 2 and every at least 1"):
        SegmentConfig(**settings)


# ---------------------------------------------------------------- cache


def from_cache(
    tokenizer: IndexTokenizer, store: Store, fingerprint: str = "f" * 64, split: str = "train"
) -> CodeArrays:
    return cached_codes(tokenizer, fingerprint, store, split, SegmentConfig(5, 3), CPU)


def caches(store: Store) -> list[Path]:
    return sorted((store.path / "codes").iterdir())


def test_a_store_is_encoded_once(tmp_path: Path) -> None:
    store, tokenizer = make_store(tmp_path), IndexTokenizer(2)
    made = from_cache(tokenizer, store)
    count = tokenizer.encoded
    read = from_cache(tokenizer, Store.open(tmp_path))
    assert tokenizer.encoded == count > 0
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(made, read, strict=True))
    assert len(caches(store)) == 1


def test_another_tokenizer_other_segments_and_a_longer_store_are_encoded_anew(tmp_path: Path) -> None:
    store, tokenizer = make_store(tmp_path), IndexTokenizer(2)
    first = from_cache(tokenizer, store)
    from_cache(tokenizer, store, "e" * 64)
    cached_codes(tokenizer, "f" * 64, store, "train", SegmentConfig(4, 3), CPU)
    assert len(caches(store)) == 3
    with StoreWriter.open(tmp_path, make_meta()) as writer:
        writer.add(3, make_episode(20, 3), "train")
    grown = from_cache(tokenizer, Store.open(tmp_path))
    assert len(grown.codes) == len(first.codes) * 4 / 3
    assert len(caches(store)) == 4


def test_the_splits_have_caches_of_their_own(tmp_path: Path) -> None:
    store = make_store(tmp_path, [20, 20])
    with StoreWriter.open(tmp_path, make_meta()) as writer:
        writer.add(2, make_episode(9, 2), "held_out")
    store = Store.open(tmp_path)
    assert len(from_cache(IndexTokenizer(2), store, split="held_out").codes) == 10
    assert len(from_cache(IndexTokenizer(2), store).codes) > 10


def test_a_damaged_cache_is_never_read(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    from_cache(IndexTokenizer(2), store)
    file = caches(store)[0] / "codes.safetensors"
    flip(file, file.stat().st_size - 3)
    with pytest.raises(InputError, match=r"codes.safetensors: sha256 is .* damaged"):
        from_cache(IndexTokenizer(2), store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": lambda codes: codes - 1}, r"codes -1\.\.\d+ found, expected 0\.\.255"),
        ({"codes": lambda codes: codes + 256}, r"codes 256\.\.\d+ found"),
        ({"codes": lambda codes: codes + 2**30}, r"codes 1073741824\.\.\d+ found"),
        ({"codes": lambda codes: codes.astype(np.int64)}, "codes are int64"),
        ({"codes": lambda codes: codes[:, 0]}, "codes are int32"),
        ({"actions": lambda actions: actions[:, :1]}, "actions are float32"),
        ({"actions": lambda actions: actions + np.inf}, "not all finite"),
        ({"starts": lambda starts: starts[::-1].copy()}, "segments do not cover the codes"),
        ({"starts": lambda starts: starts[:0]}, r"starts are int64 \(0,\)"),
        ({"firsts": lambda firsts: firsts + 10**15}, "segments begin with frames 1000000000000000"),
        ({"firsts": lambda firsts: firsts - 1}, "segments begin with frames -1"),
        ({"firsts": lambda firsts: firsts[None]}, "firsts are int64"),
        ({"more": lambda _: np.zeros(1)}, "not the arrays of a cache"),
        ({"rewards": lambda _: None}, "not the arrays of a cache"),
    ],
)
def test_a_cache_with_a_good_digest_that_fits_no_tokenizer_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    store = make_store(tmp_path)
    arrays = from_cache(IndexTokenizer(2), store)._asdict()
    folder = caches(store)[0]
    changed = arrays | {name: how(arrays.get(name)) for name, how in change.items()}
    data = save({name: value for name, value in changed.items() if value is not None})
    files.commit_folder(folder, {"codes.safetensors": data}, files.read_manifest(folder).info, replace=True)
    with pytest.raises(InputError, match=rf"codes.safetensors: .*{message}"):
        from_cache(IndexTokenizer(2), store)


def test_the_cache_of_another_split_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    from_cache(IndexTokenizer(2), store)
    folder = caches(store)[0]
    contents = {"codes.safetensors": (folder / "codes.safetensors").read_bytes()}
    info = files.read_manifest(folder).info | {"split": "held_out"}
    files.commit_folder(folder, contents, info, replace=True)
    with pytest.raises(InputError, match=r"manifest.json: made of another store or split"):
        from_cache(IndexTokenizer(2), store)


def test_missing_files_are_found_before_hours_of_encoding(tmp_path: Path) -> None:
    store, tokenizer = make_store(tmp_path), IndexTokenizer(2)
    (tmp_path / store.entries[-1].file).unlink()
    with pytest.raises(InputError, match=r"000002.safetensors: no such file"):
        from_cache(tokenizer, store)
    assert tokenizer.encoded == 0


def test_episodes_that_are_left_out_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        encode_split(IndexTokenizer(4), make_store(tmp_path, [20, 3, 2]), "train", SegmentConfig(3, 3), CPU)
    assert "2 of 3 episodes in split train are shorter than 4 steps: left out" in caplog.text


def test_an_interrupted_cache_is_made_again(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    made = from_cache(IndexTokenizer(2), store)
    (caches(store)[0] / "manifest.json").unlink()
    tokenizer = IndexTokenizer(2)
    assert np.array_equal(from_cache(tokenizer, store).codes, made.codes)
    assert tokenizer.encoded > 0


def test_a_tokenizer_with_the_same_first_digits_is_told_apart(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    from_cache(IndexTokenizer(2), store, "f" * 64)
    with pytest.raises(InputError, match=r"was made by another tokenizer\. It is only a cache: remove "):
        from_cache(IndexTokenizer(2), store, "f" * 63 + "0")


# ---------------------------------------------------------------- clips


def test_clips_are_all_windows_inside_a_segment() -> None:
    arrays = encode_episode(IndexTokenizer(2), counting_episode(20), SegmentConfig(6, 5), CPU)
    clips = CodeClips(arrays, 4)
    segments = len(arrays.starts) - 1
    assert len(clips) == segments * 3
    for i in range(len(clips)):
        clip = clips[i]
        frames = clip["codes"][:, 0, 0]
        assert torch.equal(frames.diff(), torch.full((3,), 2))
        assert torch.equal(clip["actions"][:, 1, 0], frames[1:].float() - 1)
        assert torch.equal(clip["rewards"], 2 * frames[1:].float() - 3)
        assert torch.equal(clip["terminated"], frames[1:] == 20)


def test_clips_have_the_promised_types() -> None:
    arrays = encode_episode(IndexTokenizer(2), counting_episode(20), SegmentConfig(6, 5), CPU)
    clip = CodeClips(arrays, 4)[0]
    assert {name: (tuple(value.shape), value.dtype) for name, value in clip.items()} == {
        "codes": ((4, 1, 1), torch.int64),
        "actions": ((3, 2, 1), torch.float32),
        "rewards": ((3,), torch.float32),
        "terminated": ((3,), torch.bool),
        "weights": ((3,), torch.float32),
    }


def test_clips_longer_than_every_segment_are_refused() -> None:
    arrays = encode_episode(IndexTokenizer(2), counting_episode(20), SegmentConfig(6, 5), CPU)
    with pytest.raises(InputError, match=r"no segment of 7 latent steps; the longest has 6. Record longer episodes"):
        CodeClips(arrays, 7)


def test_shorter_segments_are_counted_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays = encode_split(IndexTokenizer(2), make_store(tmp_path, [20, 5]), "train", SegmentConfig(5, 100), CPU)
    with caplog.at_level(logging.INFO):
        CodeClips(arrays, 4)
    assert "2 of 4 segments are shorter than a clip of 4 latent steps: left out" in caplog.text


def test_each_step_of_the_episodes_has_equal_weight_in_all_clips_together() -> None:
    """The last step is in one clip and others are in many; their weights make up for it."""
    arrays = encode_episode(IndexTokenizer(1), counting_episode(40), SegmentConfig(12, 5), CPU)
    clips = CodeClips(arrays, 5)
    per_frame: dict[int, float] = {}
    values = []
    for index in range(len(clips)):
        clip = clips[index]
        for reward, weight in zip(clip["rewards"].tolist(), clip["weights"].tolist(), strict=True):
            per_frame[round(reward)] = per_frame.get(round(reward), 0.0) + weight
            values.append(weight)
    assert len(per_frame) == 40, "the rewards of a counting episode name their step"
    assert np.mean(values) == pytest.approx(1, abs=1e-5)
    assert max(per_frame.values()) == pytest.approx(min(per_frame.values()), rel=1e-5)
    assert max(values) > 4 * min(values)


def test_steps_of_two_episodes_are_not_taken_for_one(tmp_path: Path) -> None:
    store = make_store(tmp_path, lengths=(20, 20))
    arrays = encode_split(IndexTokenizer(1), store, "train", SegmentConfig(21, 7), CPU)
    assert arrays.firsts.tolist() == [0, 21]
    assert CodeClips(arrays, 21)[0]["weights"].unique().tolist() == [1.0]
