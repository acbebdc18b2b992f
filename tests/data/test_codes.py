"""Codes of episodes: aligned with actions and rewards, complete to the last frame, each step of equal weight."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stores import IndexTokenizer, make_episode, make_store

from vqvideo.data.codes import CodeArrays, CodeClips, encode_episode, joined, segment_starts
from vqvideo.data.config import SegmentConfig
from vqvideo.data.episode import Episode, EpisodeReader
from vqvideo.errors import InputError

CPU = torch.device("cpu")


def encoded(lengths: list[int], stride: int, cfg: SegmentConfig) -> list[CodeArrays]:
    """Episodes of these lengths, each apart."""
    episodes = [make_episode(length, seed) for seed, length in enumerate(lengths)]
    return [encode_episode(IndexTokenizer(stride), episode, cfg, CPU) for episode in episodes]


def counting_episode(length: int) -> Episode:
    """Action t is t, reward t is t, and the episode terminates."""
    return make_episode(length, actions=np.arange(length, dtype=np.float64)[:, None])


def test_a_long_episode_is_read_a_few_segments_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (entry,) = (store := make_store(tmp_path, [1000])).entries
    spans, frames = [], EpisodeReader.frames
    monkeypatch.setattr(EpisodeReader, "frames", lambda self, *span: spans.append(span) or frames(self, *span))
    parts = encode_episode(IndexTokenizer(2), store.reader(entry), SegmentConfig(6, 5), CPU)
    assert max(stop - start for start, stop in spans) == 15 * 5 + 11
    whole = encode_episode(IndexTokenizer(2), make_episode(1000), SegmentConfig(6, 5), CPU)
    for name, values in whole._asdict().items():
        np.testing.assert_array_equal(getattr(parts, name), values)


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


def test_arrays_have_the_promised_types() -> None:
    arrays = joined(encoded([20, 20], 2, SegmentConfig(5, 3)))
    total = int(arrays.starts[-1])
    assert (arrays.codes.shape, arrays.codes.dtype) == ((total, 1, 1), np.int32)
    assert (arrays.actions.shape, arrays.actions.dtype) == ((total, 2, 1), np.float32)
    assert (arrays.rewards.shape, arrays.rewards.dtype) == ((total,), np.float32)
    assert (arrays.terminated.shape, arrays.terminated.dtype) == ((total,), np.bool_)


def test_episodes_are_joined_in_order() -> None:
    one, two = encoded([20, 12], 2, SegmentConfig(5, 3))
    whole = joined([one, two])
    for name in ("codes", "actions", "rewards", "terminated"):
        assert np.array_equal(getattr(whole, name), np.concatenate([getattr(one, name), getattr(two, name)]))
    assert whole.starts.tolist() == [*one.starts[:-1].tolist(), *(two.starts + one.starts[-1]).tolist()]
    assert whole.firsts.tolist() == [*one.firsts.tolist(), *(two.firsts + 21).tolist()]


@pytest.mark.parametrize("settings", [{"latent_steps": 1}, {"every": 0}])
def test_impossible_segments_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"segments\.(latent_steps|every) is"):
        SegmentConfig(**settings)


# ---------------------------------------------------------------- clips


def test_clips_are_all_windows_inside_a_segment() -> None:
    arrays = encode_episode(IndexTokenizer(2), counting_episode(20), SegmentConfig(6, 5), CPU)
    clips = CodeClips([arrays], 4)
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
    clip = CodeClips([arrays], 4)[0]
    assert {name: (tuple(value.shape), value.dtype) for name, value in clip.items()} == {
        "codes": ((4, 1, 1), torch.int64),
        "actions": ((3, 2, 1), torch.float32),
        "rewards": ((3,), torch.float32),
        "terminated": ((3,), torch.bool),
        "weights": ((3,), torch.float32),
    }


def test_beyond_an_end_clips_go_on_with_steps_that_are_not_there_so_that_it_comes_at_each_place() -> None:
    cfg = SegmentConfig(6, 5)
    parts = [encode_episode(IndexTokenizer(1), counting_episode(length), cfg, CPU) for length in (20, 3)]
    plain, clips = CodeClips(parts, 4), CodeClips(parts, 4, beyond=True)
    places = []
    for index in range(len(clips)):
        clip = clips[index]
        count = int(clip["there"].sum()) + 1
        assert clip["there"].tolist() == [True] * (count - 1) + [False] * (4 - count)
        frames = clip["codes"][:, 0, 0]
        assert frames.tolist() == [
            *range(int(frames[0]), int(frames[0]) + count),
            *[int(frames[count - 1])] * (4 - count),
        ]
        for name in ("actions", "rewards", "terminated", "weights"):
            assert not clip[name][count - 1 :].any(), name
        assert count == 4 or clip["terminated"][count - 2]
        if clip["terminated"].any():
            places.append((int(clip["terminated"].nonzero()[0, 0]), int(frames[count - 1])))
    assert len(clips) == len(plain) + 2 * 2
    assert sorted(places) == [(0, 3), (0, 20), (1, 3), (1, 20), (2, 3), (2, 20)]
    rewards, weights = seen_rewards(clips)
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    of_last, of_third = (weights[rewards == step].sum() for step in (19, 10))
    assert of_last == pytest.approx(of_third, rel=1e-5)
    short = encode_episode(IndexTokenizer(1), counting_episode(2), cfg, CPU)
    assert len(CodeClips([short], 4, beyond=True)) == 2


def test_episodes_that_were_cut_are_not_gone_beyond() -> None:
    episode = replace(counting_episode(20), terminated=np.zeros(20, bool))
    arrays = encode_episode(IndexTokenizer(1), episode, SegmentConfig(6, 5), CPU)
    plain, clips = CodeClips([arrays], 4), CodeClips([arrays], 4, beyond=True)
    assert len(clips) == len(plain)
    assert "there" not in clips[0]


def test_clips_longer_than_every_segment_are_refused() -> None:
    arrays = encode_episode(IndexTokenizer(2), counting_episode(20), SegmentConfig(6, 5), CPU)
    with pytest.raises(InputError, match=r"no segment of 7 latent steps; the longest has 6. Record longer episodes"):
        CodeClips([arrays], 7)


def test_shorter_segments_are_counted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    parts = encoded([20, 5], 2, SegmentConfig(5, 100))
    with caplog.at_level(logging.INFO):
        CodeClips(parts, 4)
    assert "2 of 4 segments are shorter than a clip of 4 latent steps: left out" in caplog.text


def test_each_step_of_the_episodes_has_equal_weight_in_all_clips_together() -> None:
    """The last step is in one clip and others are in many; their weights make up for it."""
    arrays = encode_episode(IndexTokenizer(1), counting_episode(40), SegmentConfig(12, 5), CPU)
    clips = CodeClips([arrays], 5)
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


def seen_rewards(clips: CodeClips) -> tuple[np.ndarray, np.ndarray]:
    """(n,) rewards of all samples, and their weights."""
    samples = [clips[index] for index in range(len(clips))]
    rewards, weights = (torch.cat([sample[name] for sample in samples]).numpy() for name in ("rewards", "weights"))
    return rewards, weights


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_the_newest_quarter_is_as_large_a_share_of_samples_and_weights_as_asked_for(share: float) -> None:
    arrays = encode_episode(IndexTokenizer(1), counting_episode(400), SegmentConfig(12, 5), CPU)
    plain, clips = CodeClips([arrays], 2), CodeClips([arrays], 2, newest=share)
    assert seen_rewards(plain)[1].mean() == pytest.approx(seen_rewards(clips)[1].mean()) == pytest.approx(1)
    rewards, weights = seen_rewards(clips)
    new = rewards >= 300
    assert new.mean() == pytest.approx(share, abs=0.02)
    assert weights[new].sum() / weights.sum() == pytest.approx(share, abs=0.03)
    assert set(rewards) == (set(range(300, 400)) if share == 1 else set(range(400)))


def test_eventful_clips_are_a_share_of_the_samples_while_each_step_counts_alike() -> None:
    events = np.zeros(400, np.float32)
    events[[30, 200, 350]] = 1, -1, 1
    episode = make_episode(400, rewards=events)
    arrays = encode_episode(IndexTokenizer(1), episode, SegmentConfig(12, 5), CPU)
    plain, clips = CodeClips([arrays], 2), CodeClips([arrays], 2, eventful=0.25)
    shares = []
    for each in (plain, clips):
        rewards, weights = seen_rewards(each)
        ends = torch.cat([each[index]["terminated"] for index in range(len(each))]).numpy()
        shares.append(((rewards != 0) | ends).mean())
        assert weights[rewards != 0].sum() / weights.sum() == pytest.approx(3 / 400, rel=1e-3)
        assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert shares[0] < 0.02
    assert shares[1] == pytest.approx(0.25, abs=0.01)
    assert len(CodeClips([arrays], 2, eventful=0.001)) == len(plain)


def test_clips_of_parts_are_those_of_the_whole() -> None:
    """Episodes apart or joined, and steps of two episodes are not taken for one."""
    parts = encoded([20, 9, 13], 2, SegmentConfig(5, 3))
    apart, together = CodeClips(parts, 4), CodeClips([joined(parts)], 4)
    assert len(apart) == len(together) == 20
    for index in range(len(apart)):
        for name, value in together[index].items():
            assert torch.equal(apart[index][name], value)
    alone = CodeClips(parts[:1], 4)
    ratio = apart.weights[: len(alone.weights)] / np.where(alone.weights, alone.weights, 1)
    assert np.ptp(ratio[alone.weights > 0]) < 1e-5
