"""A worker process that plays episodes, and what the main process knows about it.

It leads a session of its own. The processes of its environment belong to that too, so they end with it: when it is
replaced, when the recording ends, and when the main process is gone, however that went.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple

import cloudpickle

from vqvideo.data.main_guard import IMPORTING_NAME, importable_main
from vqvideo.data.playing import WRITING, Job, play
from vqvideo.errors import InputError

# Messages of a worker: (READY, None), (DONE, WrittenEpisode), (REFUSED, an InputError's message), (CRASHED, Failure).
READY, DONE, REFUSED, CRASHED = "ready", "done", "refused", "crashed"
# What a worker does, where other numbers are the steps that it has done.
STARTING, IMPORTING, MAKING, RESETTING = -5, -4, -3, -2
_PLACES = {
    STARTING: "while it imported the main script",
    IMPORTING: "while it imported its packages",
    MAKING: "while it made its environment",
    RESETTING: "in the reset",
    WRITING: "while it wrote the episode",
}
_LOOK_FOR_PARENT = 5.0
"""Seconds."""
_LONGEST = 500
"""Characters of an error in a message."""


class Failure(NamedTuple):
    """An exception in a worker."""

    what: str
    """Its type and message."""
    traceback: str
    where: tuple[str, str, int] | None
    """Type, file and line, by which it is known again; None for one that may pass by itself: a lost connection."""


def _work(pipe: connection.Connection, pickled: bytes, step: Any, name: str) -> None:
    """A worker's life: makes its environment, then plays the episodes that it is sent."""
    step.value = IMPORTING
    lead_session(name)
    # The main process learns from the pipe's end that the worker is gone: no child may hold it open.
    os.register_at_fork(after_in_child=pipe.close)
    try:
        job: Job = cloudpickle.loads(pickled)
        step.value = MAKING
        env, policy = job.make_env(), job.make_policy()
        # Of an agent that plays, or of the environment: the cores are shared by the workers.
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)
        pipe.send((READY, None))
        while (index := pipe.recv()) is not None:
            pipe.send((DONE, play(job, index, env, policy, lambda done: setattr(step, "value", done))))
        env.close()
    except EOFError:
        pass
    except InputError as error:
        pipe.send((REFUSED, str(error)))
    except Exception as error:
        pipe.send((CRASHED, _failure(error)))


def lead_session(name: str) -> None:
    """Makes this process lead a session of its own, which ends when the main process does."""
    process = multiprocessing.current_process()
    process.name = name
    # For the main process it stays one that ends with it. By itself it may have children, as environments do that run a
    # simulator or several environments.
    process.daemon = False
    os.setsid()
    # Ctrl-C is for the main process, which stops the workers. Not SIG_IGN: programs that an environment starts would
    # inherit that, and could not be interrupted by it.
    signal.signal(signal.SIGINT, lambda *_: None)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """Ends this process and its children when the main one is gone, even while the environment hangs."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    # Also the number, since processes that the main one has forked may hold the sentinel's pipe open.
    while not connection.wait([parent.sentinel], timeout=_LOOK_FOR_PARENT) and os.getppid() == parent.pid:
        pass
    os.killpg(0, signal.SIGKILL)


def _failure(error: Exception) -> Failure:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    may_pass = isinstance(error, ConnectionError | TimeoutError)
    where = None if may_pass else (type(error).__qualname__, frame.filename, frame.lineno or 0)
    what = "".join(traceback.format_exception_only(error)).strip()[:_LONGEST]
    return Failure(what, traceback.format_exc().rstrip(), where)


class Worker:
    """One worker process and what the main process knows about it."""

    _main_ends = False
    """Whether the main process is at its end."""

    def __init__(self, number: int, pickled: bytes) -> None:
        # A thread that records would replace the workers that have just been ended.
        if Worker._main_ends:
            raise SystemExit
        context = multiprocessing.get_context("spawn")
        self.number = number
        self.pipe, theirs = context.Pipe()
        # Steps that are done, read by polling: a message per step would cost fast environments a tenth of their speed.
        self.step = context.RawValue(ctypes.c_longlong, STARTING)
        self.process: SpawnProcess = context.Process(
            target=_work, args=(theirs, pickled, self.step, f"collect-{number}"), name=IMPORTING_NAME, daemon=True
        )
        self._parent = os.getpid()
        # Before multiprocessing's own: it would end the worker and not its children, and wait for it.
        atexit.register(self._end_with_main)
        with importable_main():
            self.process.start()
        theirs.close()
        self.index: int | None = None
        """The episode that it plays."""
        self.ready = False
        self._sign_of_life()

    @property
    def dismissed(self) -> bool:
        """Whether there is nothing more for it to do than to close its environment."""
        return self.ready and self.index is None

    def send(self, index: int | None) -> None:
        """Lets it play an episode; None ends it."""
        self.index = index
        self.step.value = RESETTING
        self._sign_of_life()
        # That it died while idle is found when its pipe is read.
        with contextlib.suppress(OSError):
            self.pipe.send(index)

    def hangs(self, timeout: float) -> bool:
        """Whether it has a task and did nothing for `timeout` seconds; never for 0."""
        if self.step.value != self.seen_step:
            self._sign_of_life()
        return not self.dismissed and 0 < timeout < time.monotonic() - self.seen

    def _sign_of_life(self) -> None:
        self.seen, self.seen_step = time.monotonic(), self.step.value

    def place(self) -> str:
        """Where it is, for messages."""
        return _PLACES.get(self.step.value, f"at step {self.step.value}")

    def exit_code(self, patience: float = 0.0) -> int | None:
        """Of a process that ended, if it does so within `patience` seconds."""
        end = time.monotonic() + patience
        # Not `join` with a time limit, which waits for the worker's children as well.
        while self.process.exitcode is None and time.monotonic() < end:
            time.sleep(0.02)
        return self.process.exitcode

    def _end_with_main(self) -> None:
        Worker._main_ends = True
        self.kill()

    def kill(self) -> None:
        """Ends it, whatever it does, and the processes of its environment."""
        atexit.unregister(self._end_with_main)
        # A fork of the main process inherits what is to be done at exit, and must not do it.
        if os.getpid() != self._parent or self.process.pid is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.pipe.close()
