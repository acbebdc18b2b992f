"""The collector: the same episodes however they are played, whatever breaks on the way."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import stub_envs
from recordings import play
from stub_envs import FixedPolicy, MemoryWriter, SamplePolicy, StubEnv

from vqvideo.data.collect import split_of
from vqvideo.data.playing import episode_seeds, resize
from vqvideo.errors import InputError

# --- what is recorded ---


def test_an_episode_has_one_frame_more_than_actions_and_is_cut_at_max_steps() -> None:
    play(StubEnv, writer := MemoryWriter())
    for episode in writer.episodes.values():
        assert episode.frames.shape == (9, 16, 16, 3)
        assert len(episode.actions) == len(episode.rewards) == 8
        assert episode.truncated.tolist() == [False] * 7 + [True]
        assert not episode.terminated.any()


def test_an_episode_that_ends_by_itself_is_terminated_and_not_truncated() -> None:
    play(partial(StubEnv, length=8), writer := MemoryWriter())
    assert writer.episodes[0].terminated.tolist() == [False] * 7 + [True]
    assert not writer.episodes[0].truncated.any()
    play(partial(StubEnv, length=3), shorter := MemoryWriter())
    assert len(shorter.episodes[0].actions) == 3


def test_frames_and_actions_are_those_of_the_environment_in_order() -> None:
    writer = MemoryWriter()
    play(StubEnv, writer, frame_size=(20, 20), seed=4)
    seeds = episode_seeds(4, 1)
    env, policy = StubEnv(), SamplePolicy()
    frame, _ = env.reset(seed=seeds.env)
    policy.reset(env, np.random.default_rng(seeds.policy))
    recorded = writer.episodes[1]
    for step in range(8):
        np.testing.assert_array_equal(recorded.frames[step], frame)
        action = policy(frame)
        assert recorded.actions[step] == [action]
        frame, *_ = env.step(action)
    np.testing.assert_array_equal(recorded.frames[8], frame)
    assert recorded.seed == seeds.env


def test_the_report_counts_what_was_recorded() -> None:
    report = play(partial(StubEnv, length=4), MemoryWriter(), episodes=2)
    assert report.episodes == 2
    assert report.frames == 10
    assert report.returns == (2.0, 2.0)


def test_each_nth_episode_is_held_out() -> None:
    play(StubEnv, writer := MemoryWriter(), episodes=7, max_steps=1, held_out_every=3)
    assert [i for i, split in writer.splits.items() if split == "held_out"] == [2, 5]
    assert {split_of(i, 0) for i in range(9)} == {"train"}


def test_episodes_differ_between_indices_and_between_seeds() -> None:
    assert len({episode_seeds(seed, index).env for seed in range(30) for index in range(30)}) == 900
    play(StubEnv, one := MemoryWriter(), seed=0)
    play(StubEnv, two := MemoryWriter(), seed=1)
    assert (one.episodes[0].frames != one.episodes[1].frames).any()
    assert (one.episodes[0].frames != two.episodes[0].frames).any()


def test_an_environment_that_reuses_one_array_is_recorded_frame_by_frame() -> None:
    play(stub_envs.ReusesItsArray, writer := MemoryWriter(), frame_size=(20, 20))
    assert writer.episodes[0].frames[:, 0, 0, 0].tolist() == list(range(9))


def test_frames_of_the_stored_size_are_not_touched_and_others_are_averaged() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    assert resize(frame, (32, 48)) is frame
    assert resize(frame, (24, 16)).shape == (24, 16, 3)
    flat = np.full((400, 600, 3), 77, np.uint8)
    np.testing.assert_array_equal(resize(flat, (64, 64)), 77)
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[::2] = 200
    assert abs(int(resize(halves, (8, 8)).mean()) - 100) < 5, "stripes blend into their mean"


def test_every_frame_of_a_long_episode_is_resized() -> None:
    writer = MemoryWriter()
    play(partial(StubEnv, length=500), writer, episodes=1, max_steps=150, frame_size=(20, 20))
    play(partial(StubEnv, length=500), small := MemoryWriter(), episodes=1, max_steps=150)
    resized = [resize(frame, (16, 16)) for frame in writer.episodes[0].frames]
    np.testing.assert_array_equal(resized, small.episodes[0].frames)


# --- what is refused ---


@pytest.mark.parametrize(
    ("kind", "action"),
    [
        ("box", np.array([np.nan, 0, 0], np.float32)),
        ("box", np.full(3, 1.5)),
        ("box", [0.0, 0.0]),
        *(("discrete", action) for action in (-1, 5, 1.5, None, "left")),
    ],
)
def test_a_bad_action_is_refused_before_the_environment_sees_it(kind: str, action: Any) -> None:
    with pytest.raises(InputError, match=r"episode 0 \(seed \d+\), step 0: the policy's action"):
        play(partial(StubEnv, kind), writer := MemoryWriter(), partial(FixedPolicy, action))
    assert not writer.episodes


@pytest.mark.parametrize("kind", ["larger", "float", "int64", "rgba", "gray"])
def test_frames_that_change_in_mid_episode_are_refused(kind: str) -> None:
    with pytest.raises(InputError, match=r"episode 0 \(seed \d+\), step 3: the frame"):
        play(partial(stub_envs.OddFrames, kind), MemoryWriter())


class OddFromTheStart(StubEnv):
    """Its first frame already is none."""

    def __init__(self, frame: Any) -> None:
        super().__init__()
        self.odd = frame

    def frame(self) -> Any:
        return self.odd


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        ({"pixels": np.zeros((20, 20, 3), np.uint8)}, "dict"),
        (None, "NoneType"),
        (np.zeros((3, 20, 20), np.uint8), r"uint8 \(3, 20, 20\)"),
        (np.zeros((0, 20, 3), np.uint8), r"uint8 \(0, 20, 3\)"),
        (np.full((20, 20, 3), np.nan), r"float64 \(20, 20, 3\)"),
    ],
)
def test_a_first_frame_that_is_none_is_refused_and_its_range_not_guessed(frame: Any, found: str) -> None:
    with pytest.raises(InputError, match=rf"step 0: the frame is {found}; expected .h, w, 3."):
        play(partial(OddFromTheStart, frame), MemoryWriter())


class OddReward(StubEnv):
    """Pays in a strange currency."""

    def __init__(self, reward: Any) -> None:
        super().__init__()
        self.reward = reward

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        return self.frame(), self.reward, False, False, {}


@pytest.mark.parametrize("reward", [None, "x", np.zeros(2), np.nan, np.inf, 1e39, 10**400, 1j])
def test_a_reward_that_is_no_finite_number_is_refused(reward: Any) -> None:
    with pytest.raises(InputError, match=r"episode 0 \(seed \d+\), step 0: the environment's reward is"):
        play(partial(OddReward, reward), MemoryWriter())


@pytest.mark.parametrize("reward", [1, np.float32(0.5), np.array(2.0), True, np.int64(-3)])
def test_a_reward_may_be_any_number(reward: Any) -> None:
    play(partial(OddReward, reward), writer := MemoryWriter())
    assert writer.episodes[0].rewards[0] == float(reward)


@pytest.mark.parametrize("env, message", [(stub_envs.Blank, "every frame is black"), (stub_envs.Still, "are equal")])
def test_blank_episodes_are_warned_about(
    env: type[gymnasium.Env], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    play(env, MemoryWriter(), episodes=1)
    assert message in caplog.text
