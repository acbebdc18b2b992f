"""Environments with processes of their own are recorded in workers, and nothing that they start outlives these."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
from family_envs import CHILDREN, Family, running
from recordings import assert_same, play, wait_until
from stub_envs import MemoryWriter, StubEnv

from vqvideo.data.playing import episode_seeds
from vqvideo.errors import InputError


@pytest.fixture(autouse=True)
def _short_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqvideo.data.workers._CLOSING_SECONDS", 0.2)


def assert_children(notes: Path, count: int) -> None:
    """So many were there, and none is there any more."""
    assert len(list(notes.glob("[0-9]*.*"))) == count
    wait_until(lambda: not running(notes), f"{running(notes)} to end")


def test_an_environment_with_children_of_all_kinds_is_recorded_and_they_end_with_the_worker(tmp_path: Path) -> None:
    play(partial(Family, list(CHILDREN), tmp_path), writer := MemoryWriter(), episodes=2, workers=1)
    play(StubEnv, expected := MemoryWriter(), episodes=2)
    assert_same(writer, expected)
    assert_children(tmp_path, 1 + 1 + 1 + 2 + 2)


@pytest.mark.parametrize("how", ["exits", "hangs"])
def test_a_worker_that_is_replaced_takes_its_children_along(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also, one that dies is noticed although a child of it lives: without a limit it would be waited for for ever."""
    make_env = partial(Family, ["a program", "a forked process"], tmp_path, how, episode_seeds(0, 0).env)
    limit = 0.0 if how == "exits" else 1.0
    play(make_env, writer := MemoryWriter(), episodes=1, workers=1, step_timeout=limit)
    assert writer.indices == {0}
    assert ("exit code 3" if how == "exits" else "no sign of life") in caplog.text
    assert_children(tmp_path, 2 * 2)


SCRIPT = """
    import os, sys, threading, time
    from functools import partial
    from pathlib import Path
    sys.path.insert(0, TESTS)
    from family_envs import Family
    from stub_envs import MemoryWriter, SamplePolicy
    from vqvideo.data.collect import collect
    from vqvideo.data.playing import episode_seeds

    notes = Path(sys.argv[1])

    class Noted(Family):
        def _break(self):
            (notes / f"{os.getpid()}.worker").touch()
            (notes / "hangs").touch()
            time.sleep(600)

    def record():
        collect(partial(Noted, ["a program"], notes, "never ends", episode_seeds(0, 0).env), SamplePolicy,
                MemoryWriter(), episodes=1, max_steps=8, frame_size=(16, 16), workers=1, progress=False)

    def wait():
        while not (notes / "hangs").exists():
            time.sleep(0.02)

    if __name__ == "__main__":
        MAIN
"""
ENDS = {
    "is killed": "record()",
    "is interrupted": "record()",
    "ends beside the recording": "threading.Thread(target=record, daemon=True).start(); wait()",
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_outlives_a_main_process_that(end: str, tmp_path: Path) -> None:
    script = textwrap.dedent(SCRIPT).replace("TESTS", repr(str(Path(__file__).parents[1]))).replace("MAIN", ENDS[end])
    (tmp_path / "play.py").write_text(script)
    main = subprocess.Popen([sys.executable, str(tmp_path / "play.py"), str(tmp_path)], stderr=subprocess.PIPE)
    wait_until((tmp_path / "hangs").exists, "the worker to hang", 60.0)
    if end == "is killed":
        main.send_signal(signal.SIGKILL)
    if end == "is interrupted":
        main.send_signal(signal.SIGINT)
    main.communicate(timeout=60)
    assert_children(tmp_path, 2)


def test_a_process_that_may_have_no_children_says_how_to_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"a daemonic process may start no workers: play .* with workers=0"):
        play(StubEnv, MemoryWriter(), workers=1)
