"""Workers: what breaks in one is tried again where that can help, and said once where it cannot."""

from __future__ import annotations

import logging
import multiprocessing
import subprocess
import sys
import textwrap
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import stub_envs
from recordings import assert_same, play
from stub_envs import BreakingEnv, FixedPolicy, MemoryWriter, SamplePolicy, StubEnv

from vqvideo import envs
from vqvideo.data.playing import episode_seeds
from vqvideo.envs.policies import make_policy
from vqvideo.errors import InputError


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


class Repeats(StubEnv):
    """Raises the same error in one place, every time or the first few times."""

    def __init__(self, where: str, error: Exception, notes: Path, times: int = 1000) -> None:
        super().__init__()
        self.where, self.error, self.notes, self.times = where, error, notes, times
        self._raise("start")

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        self._raise("reset")
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self._raise("step")
        return super().step(action)

    def _raise(self, where: str) -> None:
        if where == self.where and len(tries := list(self.notes.iterdir())) < self.times:
            (self.notes / str(len(tries))).touch()
            raise self.error


@pytest.mark.parametrize(
    ("where", "place", "attempts"),
    [("start", "while it made its environment", 1), ("reset", "in the reset", 2), ("step", "at step 0", 2)],
)
def test_an_error_that_only_repeats_itself_is_told_once(
    where: str, place: str, attempts: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_env = partial(Repeats, where, AttributeError("no 'lives' here"), tmp_path)
    with pytest.raises(InputError, match=rf"worker \d raised an error {place}: AttributeError: no 'lives' here"):
        play(make_env, MemoryWriter(), workers=1)
    assert len(list(tmp_path.iterdir())) == attempts
    assert caplog.text.count("Traceback (most recent call last)") == 1
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("where", "times"), [("start", 1), ("reset", 2)])
def test_a_connection_that_is_lost_for_a_while_is_waited_for(where: str, times: int, tmp_path: Path) -> None:
    make_env = partial(
        Repeats, where, ConnectionRefusedError("no server yet"), tmp_path, times=1 if where == "start" else 2
    )
    play(make_env, writer := MemoryWriter(), episodes=1, workers=1)
    assert writer.indices == {0}


def test_what_cannot_be_sent_to_workers_is_refused_with_what_to_do() -> None:
    lock = threading.Lock()
    with pytest.raises(InputError, match=r"cannot be sent to workers .*lock.*: use a function of plain values"):
        play(lambda: StubEnv() if lock else None, MemoryWriter(), workers=1)


# --- scripts that workers import ---


def test_a_script_that_comes_through_a_pipe_records() -> None:
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from stub_envs import MemoryWriter, SamplePolicy, StubEnv
from vqvideo.data.collect import collect

class Own(StubEnv):
    pass

print(collect(Own, SamplePolicy, MemoryWriter(), episodes=1, max_steps=8, frame_size=(20, 20), workers=1))
"""
    ended = subprocess.run([sys.executable], input=script, capture_output=True, text=True, timeout=120)
    assert "CollectReport(episodes=1, frames=9" in ended.stdout, ended.stderr


UNGUARDED = {
    "collect": """
        collect(StubEnv, SamplePolicy, MemoryWriter(), episodes=2, max_steps=8, frame_size=(16, 16), workers=2)
    """,
    "StoreWriter": """
        with StoreWriter.open(place, make_meta(frame_size=(16, 16))) as writer:
            collect(StubEnv, SamplePolicy, writer, episodes=2, max_steps=8, frame_size=(16, 16), workers=2)
    """,
    "record": """
        record(RecordConfig("TinyWorld", place, episodes=2, steps=8, frame_size=16, workers=2))
    """,
    "a bug of its own": """
        if __name__ == "__main__":
            collect(StubEnv, SamplePolicy, MemoryWriter(), episodes=2, max_steps=8, frame_size=(16, 16), workers=2)
        else:
            raise RuntimeError("a lamp is broken")
    """,
}


@pytest.mark.parametrize("door", UNGUARDED)
def test_a_script_that_workers_cannot_import_is_told_so_once(door: str, tmp_path: Path) -> None:
    lines = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from stores import make_meta
        from stub_envs import MemoryWriter, SamplePolicy, StubEnv
        from vqvideo.data.collect import collect
        from vqvideo.data.config import RecordConfig
        from vqvideo.data.store import StoreWriter
        from vqvideo.envs.recording import record
        place = Path({str(tmp_path / "store")!r})
    """
    script = tmp_path / "play.py"
    script.write_text(textwrap.dedent(lines) + textwrap.dedent(UNGUARDED[door]))
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    if door == "a bug of its own":
        assert "InputError: worker 0 died (exit code 1) while it imported the main script" in ended.stderr
        assert ended.stderr.count("RuntimeError: a lamp is broken") == 1
    else:
        error = ended.stderr.strip().splitlines()[-1]
        assert error.startswith("vqvideo.errors.InputError: this script records outside of `if __name__ ==")
        assert "put the call under that line, or play in this process with workers=0" in error
        assert ended.stderr.count("Traceback") == 1
        assert "another process" not in ended.stderr


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


def stub_without_torch() -> StubEnv:
    assert "torch" not in sys.modules
    return StubEnv()


def test_a_worker_loads_no_torch_for_an_environment_that_needs_none() -> None:
    """Every worker would need 0.7 GiB of its own, and seconds to load it."""
    play(stub_without_torch, writer := MemoryWriter(), episodes=1, workers=1, frame_size=(20, 20))
    assert writer.indices == {0}
