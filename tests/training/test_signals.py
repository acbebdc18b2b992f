"""Signals wait for the step boundary, but not for ever, and launchers that are gone are noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from processes import ROOT

from vqvideo.training import signals
from vqvideo.training.signals import StopSignal, Terminated, raise_on_termination


def test_a_signal_is_remembered_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_work_that_can_be_done_again_is_left_out_from_the_signal_on() -> None:
    done: list[str] = []
    with StopSignal() as stop:
        with stop.interrupting():
            done.append("before")
            os.kill(os.getpid(), signal.SIGINT)
            done.append("after")
        done.append("outside")
    assert done == ["before", "outside"]
    assert stop.number == signal.SIGINT


def test_errors_inside_are_not_swallowed() -> None:
    with StopSignal() as stop, pytest.raises(ValueError, match="a bug"), stop.interrupting():
        raise ValueError("a bug")


def test_outside_of_training_sigterm_cleans_up_like_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        raise_on_termination()
        with pytest.raises(KeyboardInterrupt) as ended:
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert type(ended.value) is Terminated


TWICE = """
import os, signal, time
from vqvideo.training.signals import StopSignal
with StopSignal() as stop:
    os.kill(os.getpid(), signal.SIGINT)
    print(stop.number, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here", flush=True)
"""


BY_ACCELERATE, BY_TORCHRUN = {"ACCELERATE_MIXED_PRECISION": "no"}, {"TORCHELASTIC_RUN_ID": "1"}


@pytest.mark.parametrize(("launcher", "code", "out"), [({}, 143, "2\n"), (BY_TORCHRUN, 0, "2\nstill here\n")])
def test_a_second_signal_ends_at_once_but_the_echo_of_a_launcher_is_the_same_one(
    launcher: dict[str, str], code: int, out: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TWICE], env=environment(launcher), capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert (ended.returncode, ended.stdout) == (code, out)


CHILD = """
import sys, time
from vqvideo.training import signals
from vqvideo.training.signals import StopSignal, stop_with_launcher
signals._WATCH_SECONDS = 0.05
stop_with_launcher()
stop_with_launcher()
with StopSignal() as stop:
    open(sys.argv[1], "w").write("under way")
    for _ in range(200):
        if stop.number:
            open(sys.argv[1], "w").write(f"stopped by {stop.number}")
            break
        time.sleep(0.05)
    else:
        open(sys.argv[1], "w").write("not stopped")
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[2]])"


@pytest.mark.parametrize(("launcher", "last"), [(BY_ACCELERATE, "stopped by 15"), ({}, "under way")])
def test_only_what_was_launched_stops_when_its_parent_is_gone(
    tmp_path: Path, launcher: dict[str, str], last: str
) -> None:
    note = tmp_path / "note"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD, str(note)], env=environment(launcher), cwd=ROOT, start_new_session=True
    )
    group = os.getpgid(parent.pid)
    _wait_for(lambda: note.exists() and note.read_text() == "under way")
    parent.kill()
    parent.wait(timeout=30)
    if launcher:
        _wait_for(lambda: note.read_text() not in ("", "under way"))
    else:
        time.sleep(0.5)
    assert note.read_text() == last
    if not launcher:
        os.killpg(group, signal.SIGKILL)


def environment(launcher: dict[str, str]) -> dict[str, str]:
    """Ours, with the marks of this launcher and of no other."""
    return {name: value for name, value in os.environ.items() if name not in signals._LAUNCHERS} | launcher


def test_in_this_process_there_is_no_launcher_to_watch() -> None:
    signals.stop_with_launcher()
    assert signals.was_launched() or "launcher-watch" not in {thread.name for thread in threading.enumerate()}


def _wait_for(happened: object) -> None:
    end = time.monotonic() + 20
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)
