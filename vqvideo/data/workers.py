"""Worker processes that play episodes and may hang or die: a new worker tries again, unless that cannot help."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Generator, Iterator
from multiprocessing import connection
from typing import Any

import cloudpickle

from vqvideo.data.episode_writer import WrittenEpisode
from vqvideo.data.main_guard import ADVICE, UNGUARDED
from vqvideo.data.playing import WRITING, Job, episode_seeds
from vqvideo.data.worker import CRASHED, MAKING, REFUSED, STARTING, Failure, Worker
from vqvideo.errors import InputError

log = logging.getLogger(__name__)

ATTEMPTS = 4
"""How often an episode is tried before the recording gives up: once, and three more times."""
POLL_SECONDS = 0.1
_IMPORT_TIMEOUT = 600.0
"""Seconds for a worker's imports, at least: an environment that is to be made in a second does not make them faster."""
_KILLED = -9
_CLOSING_SECONDS = 5.0


class Pool:
    """Plays episodes in processes and yields (index, episode) in the order in which they end.

    Raises:
        InputError: no worker can be started from here, or sent what it needs.
    """

    def __init__(self, job: Job, todo: list[int], workers: int, step_timeout: float, reset_timeout: float) -> None:
        if multiprocessing.current_process().daemon:
            raise InputError("a daemonic process may start no workers: play in this process with workers=0")
        try:
            self.pickled = cloudpickle.dumps(job)
        except Exception as error:
            raise InputError(
                f"what makes the environment or the policy cannot be sent to workers ({error}): use a function of "
                "plain values, or play in this process with workers=0"
            ) from error
        self.job, self.step_timeout, self.reset_timeout = job, step_timeout, reset_timeout
        self.todo, self.remaining = deque(todo), len(todo)
        self.attempts: dict[int | None, int] = {}
        self.failures: dict[int | None, tuple[Any, str]] = {}
        """The last exception of an episode, and its place in the episode."""
        self.shown: set[tuple[str, str, int] | None] = set()
        """Exceptions whose traceback is in the log."""
        self.workers: list[Worker] = []
        self.size, self.numbers, self.imported = workers, itertools.count(), False

    def play(self) -> Generator[tuple[int, WrittenEpisode], None, None]:
        """Yields the episodes; stops the workers when it is closed."""
        try:
            while self.remaining:
                self._start_missing()
                yield from self._results()
                self._replace_hanging()
        finally:
            self._stop()

    def _start_missing(self) -> None:
        """The first one alone until it has imported the main script: what fails there would fail in all."""
        self.imported = self.imported or any(worker.step.value != STARTING for worker in self.workers)
        busy = sum(not worker.dismissed for worker in self.workers)
        wanted = min(self.size, self.remaining) if self.imported else 1
        for _ in range(busy, wanted):
            self.workers.append(Worker(next(self.numbers), self.pickled))

    def _results(self) -> Iterator[tuple[int, WrittenEpisode]]:
        """Waits a moment for messages and yields the episodes among them."""
        connection.wait([worker.pipe for worker in self.workers], timeout=POLL_SECONDS)
        for worker in list(self.workers):
            # Before the pipe, where it may have said something at its end.
            code = worker.exit_code()
            try:
                # One at a time: a worker that said anything waits for an answer, or is ending.
                message = worker.pipe.recv() if worker.pipe.poll() else None
            except (EOFError, OSError):
                message, code = None, worker.exit_code(patience=1.0) or 0
            if message is not None:
                yield from self._handle(worker, *message)
            elif code is not None:
                self._died(worker, code)

    def _handle(self, worker: Worker, kind: str, body: Any) -> Iterator[tuple[int, WrittenEpisode]]:
        if kind == REFUSED:
            raise InputError(body)
        if kind == CRASHED:
            self._failed(worker, body)
            return
        done, worker.ready = worker.index, True
        self.attempts.pop(None, None)
        worker.send(self.todo.popleft() if self.todo else None)
        if done is not None:
            self.remaining -= 1
            yield done, body

    def _died(self, worker: Worker, code: int) -> None:
        if worker.step.value == STARTING and code == UNGUARDED:
            raise InputError(ADVICE)
        hint = "; it was killed, often for lack of memory: try fewer workers" if code == _KILLED else ""
        # Python itself ended it, and has printed why.
        hopeless = worker.step.value == STARTING and code > 0
        self._replace(worker, f"died (exit code {code})", hint, hopeless=hopeless)

    def _failed(self, worker: Worker, failure: Failure) -> None:
        """What happens in the same way again, or before anything is played, would happen at every attempt."""
        index, place = worker.index, worker.place()
        known = failure.where is not None
        again = known and self.failures.get(index) == (failure.where, place)
        self.failures[index] = failure.where, place
        details = "" if known and failure.where in self.shown else f"\n{failure.traceback}"
        self.shown.add(failure.where)
        hopeless = again or (known and worker.step.value <= MAKING)
        self._replace(worker, "raised an error", f": {failure.what}", details, hopeless=hopeless)

    def _replace_hanging(self) -> None:
        for worker in list(self.workers):
            phase = worker.step.value
            name, limit = ("reset-timeout", self.reset_timeout) if phase < 0 else ("step-timeout", self.step_timeout)
            if phase == WRITING:
                limit = 0.0  # that is the disk, and the main process would wait for it as well
            elif limit and phase < MAKING:
                limit = max(limit, _IMPORT_TIMEOUT)
            if worker.hangs(limit):
                hint = f"; if it is only slow, raise {name} (0: no limit)"
                self._replace(worker, f"gave no sign of life for {limit:g} s", hint)

    def _replace(self, worker: Worker, what: str, hint: str, details: str = "", *, hopeless: bool = False) -> None:
        """Ends a worker that failed and puts its episode back, for the one that is started in its place.

        Raises:
            InputError: another attempt cannot help, or this was the last.
        """
        index, place, dismissed = worker.index, worker.place(), worker.dismissed
        self.workers.remove(worker)
        worker.kill()
        if dismissed:
            return
        seed = "" if index is None else f"episode {index} (env seed {episode_seeds(self.job.seed, index).env}): "
        message = f"{seed}worker {worker.number} {what} {place}{hint}"
        self.attempts[index] = self.attempts.get(index, 0) + 1
        if hopeless:
            if details:
                log.error("%s", details.strip())
            raise InputError(f"{message}. It would at every attempt; the lines above say more.")
        log.error("%s%s", message, details)
        if self.attempts[index] >= ATTEMPTS:
            raise InputError(f"{message}; that was attempt {ATTEMPTS}, the last. The log above has the details.")
        if index is not None:
            self.todo.appendleft(index)

    def _stop(self) -> None:
        for worker in self.workers:
            if worker.dismissed:
                worker.exit_code(_CLOSING_SECONDS)
            worker.kill()
        self.workers = []


def cores() -> int:
    """CPU cores that this process may use: a container's share, not the whole machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
