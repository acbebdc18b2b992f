"""Worker processes that play episodes and may hang or die: each failure is answered by a new worker."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Generator, Iterator
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from typing import Any

import cloudpickle

from vqvideo.data.episode_writer import WrittenEpisode
from vqvideo.data.playing import WRITING, Job, episode_seeds, play
from vqvideo.errors import InputError

log = logging.getLogger(__name__)

ATTEMPTS = 4
"""How often an episode is tried before the recording gives up: once, and three more times."""
POLL_SECONDS = 0.1

# Messages of a worker: (READY, None), (DONE, WrittenEpisode), (REFUSED, an InputError's message), (CRASHED, traceback).
READY, DONE, REFUSED, CRASHED = "ready", "done", "refused", "crashed"
# What a worker does, where other numbers are the steps that it has done.
IMPORTING, MAKING, RESETTING = -4, -3, -2
_PLACES = {
    IMPORTING: "while it started",
    MAKING: "while it made its environment",
    RESETTING: "in the reset",
    WRITING: "while it wrote the episode",
}
_IMPORT_TIMEOUT = 600.0
"""Seconds for a worker's imports, at least: an environment that is to be made in a second does not make them faster."""


def _work(pipe: connection.Connection, pickled: bytes, step: Any) -> None:
    """A worker's life: makes its environment, then plays the episodes that it is sent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the main process, which stops the workers
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        import torch
        import torchvision.transforms.v2.functional  # noqa: F401 - here, where time for imports is allowed for

        torch.set_num_threads(1)
        job: Job = cloudpickle.loads(pickled)
        step.value = MAKING
        env, policy = job.make_env(), job.make_policy()
        pipe.send((READY, None))
        while (index := pipe.recv()) is not None:
            pipe.send((DONE, play(job, index, env, policy, lambda done: setattr(step, "value", done))))
        env.close()
    except EOFError:
        pass
    except InputError as error:
        pipe.send((REFUSED, str(error)))
    except Exception:
        pipe.send((CRASHED, traceback.format_exc()))


def _die_with_parent() -> None:
    """Ends this process when the main one is gone, even while the environment hangs."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


class Worker:
    """One worker process and what the main process knows about it."""

    def __init__(self, number: int, pickled: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self.number = number
        self.pipe, theirs = context.Pipe()
        # Steps that are done, read by polling: a message per step would cost fast environments a tenth of their speed.
        self.step = context.RawValue(ctypes.c_longlong, IMPORTING)
        self.process: SpawnProcess = context.Process(
            target=_work, args=(theirs, pickled, self.step), name=f"collect-{number}", daemon=True
        )
        self.process.start()
        theirs.close()
        self.index: int | None = None
        """The episode that it plays."""
        self.ready = False
        self._sign_of_life()

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
        busy = not self.ready or self.index is not None
        return busy and 0 < timeout < time.monotonic() - self.seen

    def _sign_of_life(self) -> None:
        self.seen, self.seen_step = time.monotonic(), self.step.value

    def place(self) -> str:
        """Where it is, for messages."""
        return _PLACES.get(self.step.value, f"at step {self.step.value}")

    def exit_code(self) -> int | None:
        """Of a process that ended."""
        self.process.join(timeout=1.0)
        return self.process.exitcode

    def kill(self) -> None:
        """Ends it, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


class Pool:
    """Plays episodes in processes and yields (index, episode) in the order in which they end."""

    def __init__(self, job: Job, todo: list[int], workers: int, step_timeout: float, reset_timeout: float) -> None:
        self.job, self.step_timeout, self.reset_timeout = job, step_timeout, reset_timeout
        self.todo, self.remaining = deque(todo), len(todo)
        self.attempts: dict[int | None, int] = {}
        self.pickled = cloudpickle.dumps(job)
        self.workers: list[Worker] = []
        self.size = workers

    def play(self) -> Generator[tuple[int, WrittenEpisode], None, None]:
        """Yields the episodes; stops the workers when it is closed."""
        try:
            self.workers = [Worker(number, self.pickled) for number in range(self.size)]
            while self.remaining:
                yield from self._results()
                self._replace_hanging()
        finally:
            self._stop()

    def _results(self) -> Iterator[tuple[int, WrittenEpisode]]:
        """Waits a moment for messages and yields the episodes among them."""
        connection.wait([worker.pipe for worker in self.workers], timeout=POLL_SECONDS)
        for worker in list(self.workers):
            try:
                # One at a time: a worker that said anything waits for an answer, or is ending.
                message = worker.pipe.recv() if worker.pipe.poll() else None
            except (EOFError, OSError):
                self._replace(worker, f"died (exit code {worker.exit_code()})")
                continue
            if message is not None:
                yield from self._handle(worker, *message)

    def _handle(self, worker: Worker, kind: str, body: Any) -> Iterator[tuple[int, WrittenEpisode]]:
        if kind == REFUSED:
            raise InputError(body)
        if kind == CRASHED:
            self._replace(worker, "raised an error", details=body)
            return
        done, worker.ready = worker.index, True
        worker.send(self.todo.popleft() if self.todo else None)
        if done is not None:
            self.remaining -= 1
            yield done, body

    def _replace_hanging(self) -> None:
        for worker in list(self.workers):
            phase = worker.step.value
            name, limit = ("reset-timeout", self.reset_timeout) if phase < 0 else ("step-timeout", self.step_timeout)
            if limit and phase == IMPORTING:
                limit = max(limit, _IMPORT_TIMEOUT)
            if worker.hangs(limit):
                hint = f"; if it is only slow, raise {name} (0: no limit)"
                self._replace(worker, f"gave no sign of life for {limit:g} s", hint)

    def _replace(self, worker: Worker, what: str, hint: str = "", details: str = "") -> None:
        """Ends a worker that failed, puts its episode back and starts another in its place."""
        index, place = worker.index, worker.place()
        self.workers.remove(worker)
        worker.kill()
        if index is None and worker.ready:  # it had nothing left to do
            return
        seed = "" if index is None else f"episode {index} (env seed {episode_seeds(self.job.seed, index).env}): "
        message = f"{seed}worker {worker.number} {what} {place}{hint}"
        self.attempts[index] = self.attempts.get(index, 0) + 1
        log.error("%s%s", message, f"\n{details.rstrip()}" if details else "")
        if self.attempts[index] >= ATTEMPTS:
            raise InputError(f"{message}; that was attempt {ATTEMPTS}, the last. The log above has the details.")
        if index is not None:
            self.todo.appendleft(index)
        self.workers.append(Worker(worker.number, self.pickled))

    def _stop(self) -> None:
        for worker in self.workers:
            if worker.ready and worker.index is None:
                worker.process.join(timeout=5.0)  # it is closing its environment
            worker.kill()
        self.workers = []
