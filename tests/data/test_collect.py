"""The collector: the same episodes however they are played, whatever breaks on the way."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import stub_envs
from stub_envs import BreakingEnv, FixedPolicy, MemoryWriter, SamplePolicy, StubEnv

from vqvideo import envs
from vqvideo.data.collect import CollectReport, collect, split_of
from vqvideo.data.playing import episode_seeds, resize
from vqvideo.envs.policies import make_policy
from vqvideo.errors import InputError


def play(make_env: Any, writer: MemoryWriter, make_policy: Any = SamplePolicy, **settings: Any) -> CollectReport:
    defaults: dict[str, Any] = {
        "episodes": 3, "max_steps": 8, "frame_size": (16, 16), "workers": 0, "progress": False
    }  # fmt: skip
    return collect(make_env, make_policy, writer, **(defaults | settings))


def assert_same(one: MemoryWriter, two: MemoryWriter) -> None:
    assert one.splits == two.splits
    assert one.indices == two.indices
    for index in one.indices:
        for name, value in vars(one.episodes[index]).items():
            np.testing.assert_array_equal(value, getattr(two.episodes[index], name))


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
    frames = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    assert resize(frames, (32, 32)) is frames
    flat = np.full((2, 400, 600, 3), 77, np.uint8)
    np.testing.assert_array_equal(resize(flat, (64, 64)), 77)
    halves = np.zeros((1, 64, 64, 3), np.uint8)
    halves[:, ::2] = 200
    assert abs(int(resize(halves, (8, 8)).mean()) - 100) < 5, "stripes blend into their mean"


def test_long_episodes_are_resized_in_batches_to_the_same_frames() -> None:
    writer = MemoryWriter()
    play(partial(StubEnv, length=500), writer, episodes=1, max_steps=150, frame_size=(20, 20))
    play(partial(StubEnv, length=500), small := MemoryWriter(), episodes=1, max_steps=150)
    np.testing.assert_array_equal(resize(writer.episodes[0].frames, (16, 16)), small.episodes[0].frames)


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


# --- worker processes ---


def test_any_number_of_workers_records_the_same_episodes() -> None:
    writers = [MemoryWriter() for _ in range(3)]
    make_env = partial(envs.make, envs.PRESETS["TinyWorld"])
    for workers, writer in enumerate(writers):
        play(make_env, writer, partial(make_policy, "sticky-random"), episodes=6, max_steps=30, workers=workers)
    assert_same(writers[0], writers[1])
    assert_same(writers[0], writers[2])


def test_lambdas_can_be_sent_to_workers() -> None:
    play(lambda: StubEnv("dict"), writer := MemoryWriter(), lambda: SamplePolicy(), workers=1)
    assert writer.indices == {0, 1, 2}


@pytest.mark.parametrize("how", ["raises", "exits", "segfaults", "hangs"])
def test_an_episode_that_breaks_once_is_played_again(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seed = episode_seeds(0, 2).env
    make_env = partial(BreakingEnv, how, seed, tmp_path / "broken")
    play(make_env, writer := MemoryWriter(), episodes=5, workers=2, step_timeout=2.0)
    play(StubEnv, expected := MemoryWriter(), episodes=5)
    assert_same(writer, expected)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert f"episode 2 (env seed {seed}): worker" in record.message
    assert "at step 3" in record.message
    assert {"raises": "the emulator is gone", "exits": "exit code 3", "segfaults": "exit code -11"}.get(
        how, "no sign of life for 2 s"
    ) in record.message


def test_an_episode_that_always_breaks_ends_the_recording_and_keeps_the_others() -> None:
    seed = episode_seeds(0, 2).env
    with pytest.raises(InputError, match=rf"episode 2 \(env seed {seed}\).*at step 3; that was attempt 4"):
        play(partial(BreakingEnv, "exits", seed), writer := MemoryWriter(), workers=1)
    assert writer.indices == {0, 1}
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("where", "setting", "place"),
    [
        ("start", "reset", "while it made its environment"),
        ("reset", "reset", "in the reset"),
        ("step", "step", "at step 0"),
    ],
)
def test_what_takes_longer_than_its_limit_is_named_with_the_setting_to_raise(
    where: str, setting: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqvideo.data.workers.ATTEMPTS", 1)
    make_env = partial(stub_envs.Slow, where, 600.0)
    others = {"step_timeout": 0.0, "reset_timeout": 0.0}
    limits = others | {f"{setting}_timeout": 1.0}
    with pytest.raises(InputError, match=rf"no sign of life for 1 s {place}; if .* raise {setting}-timeout"):
        play(make_env, MemoryWriter(), workers=1, **limits)


@pytest.mark.parametrize("where", ["reset", "step"])
def test_no_limit_and_a_larger_one_let_a_slow_environment_play(where: str) -> None:
    make_env = partial(stub_envs.Slow, where, 0.4)
    limits = {"step_timeout": 0.1, "reset_timeout": 60.0} if where == "reset" else {"step_timeout": 0.0}
    play(make_env, writer := MemoryWriter(), episodes=1, max_steps=2, workers=1, **limits)
    assert writer.indices == {0}


def test_an_environment_that_cannot_be_made_is_reported() -> None:
    def make_env() -> gymnasium.Env:
        raise OSError("no ROM here")

    with pytest.raises(InputError, match="while it made its environment"):
        play(make_env, MemoryWriter(), workers=1)


def test_what_no_retry_can_help_is_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match="the policy's action 9 is not in"):
        play(StubEnv, MemoryWriter(), partial(FixedPolicy, 9), workers=1)
    assert "worker" not in caplog.text


def test_an_interrupted_recording_keeps_what_is_done_and_can_be_continued(
    caplog: pytest.LogCaptureFixture,
) -> None:
    writer = MemoryWriter(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        play(StubEnv, writer, episodes=5, workers=1)
    assert len(writer.episodes) == 2
    assert "2 of 5 episodes are recorded. The same command continues" in caplog.text
    assert not multiprocessing.active_children()
    assert play(StubEnv, writer, episodes=5).episodes == 3
    play(StubEnv, whole := MemoryWriter(), episodes=5)
    assert_same(writer, whole)


def test_nothing_is_played_when_all_episodes_exist() -> None:
    play(StubEnv, writer := MemoryWriter())
    assert play(StubEnv, writer, workers=2).episodes == 0


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script = f"""
        import os, sys
        from functools import partial
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        import stub_envs
        from vqvideo.data.collect import collect
        from vqvideo.data.playing import episode_seeds

        class Noted(stub_envs.BreakingEnv):
            def _break(self):
                Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid()))
                super()._break()

        if __name__ == "__main__":
            collect(partial(Noted, "hangs", episode_seeds(0, 0).env), stub_envs.SamplePolicy,
                    stub_envs.MemoryWriter(), episodes=1, max_steps=8, frame_size=(16, 16), workers=1)
    """
    (tmp_path / "play.py").write_text(textwrap.dedent(script))
    parent = subprocess.Popen([sys.executable, str(tmp_path / "play.py")])
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "", "the worker to hang")
    worker = int((tmp_path / "pid").read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait(timeout=30)
    wait_until(lambda: not is_running(worker), "the worker to end")


def wait_until(condition: Any, what: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # Where nobody adopts orphans a dead one stays listed.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
