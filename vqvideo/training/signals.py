"""Signals that ask a run to stop, and launchers that are gone without sending one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from vqvideo.errors import RunStoppedError

NUMBERS = (signal.SIGTERM, signal.SIGINT)
"""What asks a run to stop."""
_LAUNCHERS = {"TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION"}
"""Variables that launchers leave in the environment of what they start."""
_ECHO_SECONDS = 1.0
"""Ctrl-C in a terminal reaches launcher and trainings, and the launcher passes it on: a signal that follows so soon is
the same one.
"""
_WATCH_SECONDS = 1.0
_GRACE_SECONDS = 120.0


class InterruptedRunError(RunStoppedError):
    """A signal asked the run to stop; a checkpoint was saved. Scripts exit with 128 + its number."""

    def __init__(self, number: int, where: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; go on with --resume (saved in {where})")
        self.exit_code = 128 + number


class Terminated(KeyboardInterrupt):
    """SIGTERM outside of training: whatever cleans up after Ctrl-C cleans up after it too."""


class _AskedToStop(BaseException):
    """Leaves work that can be done again, such as a validation."""


class StopSignal:
    """Remembers SIGTERM and SIGINT until the step boundary; a second one ends the process at once."""

    def __init__(self) -> None:
        self.number = 0
        """The signal that came, 0 if none did. It may change at any moment: ranks agree on it before they act."""
        self._old: dict[int, Any] = {}
        self._interrupting = False
        self._first = 0.0

    def __enter__(self) -> StopSignal:
        for number in NUMBERS:
            self._old[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Inside, a signal does not wait: the rest of the block is left out. It must hold nothing that cannot be done
        again.
        """
        self._interrupting = True
        try:
            yield
        except _AskedToStop:
            pass
        finally:
            self._interrupting = False

    def _remember(self, number: int, _: FrameType | None) -> None:
        if self.number:
            if not (was_launched() and time.monotonic() - self._first < _ECHO_SECONDS):
                os._exit(128 + number)
            return
        self.number, self._first = number, time.monotonic()
        _stopping.set()
        if self._interrupting:
            raise _AskedToStop


_stopping = threading.Event()


def was_launched() -> bool:
    """Whether `accelerate launch` or `torchrun` started this process."""
    return not _LAUNCHERS.isdisjoint(os.environ)


def raise_on_termination() -> None:
    """From now on SIGTERM raises `Terminated` in the main thread, where it would end the process without a word."""

    def terminate(number: int, _: FrameType | None) -> None:
        _stopping.set()
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)


def leave_stopping_to_parent(_: int = 0) -> None:
    """For loader processes: a signal to the whole group is for the main process, which still needs them to end in good
    order. A second SIGTERM, by which it ends one that hangs, counts.
    """
    asked = threading.Event()

    def second(number: int, _: FrameType | None) -> None:
        if asked.is_set():
            os._exit(128 + number)
        asked.set()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, second)


def stop_with_launcher() -> None:
    """Asks this process to stop when the launcher that started it is gone: killed, it leaves its processes behind, and
    they would train on unseen. Without a launcher, and in a second call, nothing happens.
    """
    name = "launcher-watch"
    if was_launched() and not any(thread.name == name for thread in threading.enumerate()):
        threading.Thread(target=_watch, args=(os.getppid(),), name=name, daemon=True).start()


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_WATCH_SECONDS)
    if not _stopping.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    # It waits for ranks that are gone, perhaps, and cannot hear.
    os._exit(128 + signal.SIGTERM)
