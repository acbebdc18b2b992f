"""Threads that follow the load: on how many a training computes, and how they wait, is what is fastest at the moment.

Threads wait for each other at every small operation. Alone on a machine they do it best by spinning. Where another
program keeps a core busy, the one whose turn does not come holds up all others, which spin in the way of it: steps take
ten times as long and more. Threads that go to sleep while they wait, or a single one, are faster then, and slower else.
Which is the case changes while a run lasts, so a few of its own steps are taken in another way now and then.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from statistics import mean

import torch

from vqvideo.training.config import TrainConfig
from vqvideo.training.hardware import available_cores
from vqvideo.training.processes import gathered

CLEARLY = 0.9
"""What takes less than this share of the time is faster; anything else is noise."""
SLOWED = 1.3
"""Steps that take so many times as long as before are a reason to look again at once."""
PLAINLY = 2.0
"""A trial ends with the first step that takes so many times as long as those before it."""
FEWEST_STEPS = 3
LEAST_SECONDS = 1.0
"""Ways are compared over so many steps and so much time, since threads that wait stall in some of them only;"""
LONG_STEP = 2.0
"""of steps that take so many seconds two are enough, and in a trial one that takes less than half."""
FIRST_WAIT = 3.0
LONGEST_WAIT = 30.0
"""Seconds between trials of a way; they double from the one to the other while nothing changes."""
SHARE_OF_TIME = 0.03
"""What the trials of a way may cost at most: after an expensive one the next comes later."""
SECONDS_BETWEEN_LINES = 30.0
"""Where the load comes and goes, the log has every change and the screen some."""


@dataclass(frozen=True)
class Way:
    """How steps are computed."""

    threads: int
    """On so many."""
    spinning: bool = True
    """Whether threads that wait spin for a while (PyTorch's OpenMP on Linux: milliseconds), or go to sleep at once."""

    def __str__(self) -> str:
        plural = "s" if self.threads > 1 else ""
        return f"{self.threads} thread{plural}" + ("" if self.spinning else " that sleep while they wait")

    def take(self) -> None:
        """Computes in this way from now on."""
        torch.set_num_threads(self.threads)
        _sleepers.keep(not self.spinning)


@dataclass(frozen=True)
class Switch:
    """A change from one way to another."""

    way: Way
    """From now on."""
    seconds: float
    """Of a step, the mean of a few."""
    before: Way
    """Up to now."""
    seconds_before: float
    """Of a step."""
    telling: bool
    """Whether it is long since the last one that was told."""

    def __str__(self) -> str:
        return f"on {self.way}: {self.seconds:.3g} s a step, on {self.before} it was {self.seconds_before:.3g}"


class FollowingThreads:
    """Chooses between ways from how long steps take, and from nothing else: ranks that are told the same seconds choose
    alike without a word.

    Args:
        ways: those that there are.
        first: index of the one to begin with.
    """

    def __init__(self, ways: tuple[Way, ...], first: int = 0) -> None:
        self.ways = ways
        self._kept = first
        self._trying: int | None = None
        self._trial: list[float] = []
        self._recent: list[float] = []
        self._usual: float | None = None
        self._passed = 0.0
        self._untold = SECONDS_BETWEEN_LINES
        self._waits = [FIRST_WAIT for _ in ways]
        self._due = [FIRST_WAIT for _ in ways]
        self._not_before = [0.0 for _ in ways]

    @property
    def kept(self) -> Way:
        """How steps are computed, trials apart."""
        return self.ways[self._kept]

    @property
    def now(self) -> Way:
        """How the next step is to be computed."""
        return self.kept if self._trying is None else self.ways[self._trying]

    def took(self, seconds: float) -> Switch | None:
        """Takes notice of a step that was computed as `now` says. Returns a change that follows from it."""
        self._passed += seconds
        self._untold += seconds
        if self._trying is None:
            self._recent = _newest([*self._recent, seconds])
            self._trying = self._next_trial()
            return None
        self._trial.append(seconds)
        before = _typical(self._recent)
        # The first step in another way prepares what later ones find ready.
        faster = before > LONG_STEP and seconds < before / PLAINLY
        if faster or seconds > before * PLAINLY or _are_enough(self._trial[1:]):
            return self._decide(self._trying, before, seconds)
        return None

    def _next_trial(self) -> int | None:
        """The way to try now, if it is time for one."""
        if not _are_enough(self._recent):
            return None
        if self._usual is not None and _typical(self._recent) > SLOWED * self._usual:
            self._usual = _typical(self._recent)
            self._look_again(self._passed)
        due = [i for i, at in enumerate(self._due) if i != self._kept and at <= self._passed]
        return min(due, key=lambda i: self._due[i], default=None)

    def _look_again(self, at: float) -> None:
        """Tries all ways from a time on, but for those of which a trial was expensive lately."""
        self._waits = [FIRST_WAIT for _ in self.ways]
        self._due = [max(at, allowed) for allowed in self._not_before]

    def _decide(self, tried: int, before: float, last: float) -> Switch | None:
        trial = self._trial
        after = _typical(trial[1:] or trial)
        self._trying, self._trial = None, []
        if last < before * PLAINLY and after < CLEARLY * before:
            way_before, self._kept = self.kept, tried
            self._recent, self._usual = _newest(trial[1:]), after if trial[1:] else None
            self._look_again(self._passed + FIRST_WAIT)
            telling = self._untold > SECONDS_BETWEEN_LINES
            self._untold = 0.0 if telling else self._untold
            return Switch(self.kept, after, way_before, before, telling)
        self._usual = before
        lost = sum(trial) - len(trial) * before
        self._waits[tried] = min(2 * self._waits[tried], LONGEST_WAIT)
        self._not_before[tried] = self._passed + lost / SHARE_OF_TIME
        self._due[tried] = max(self._passed + self._waits[tried], self._not_before[tried])
        return None


def following_threads(cfg: TrainConfig, *, on_cpu: bool) -> FollowingThreads | None:
    """What follows the load in a run, from the number of threads that it begins with. Where that number is kept, the
    choice is how they wait, which changes no bit. None where there is no choice: on a GPU, or on a core for each
    process. Collective.

    Args:
        cfg: how to train.
        on_cpu: whether the CPU computes.
    """
    count = torch.get_num_threads()
    most = max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    # A rank waits for the others in every step, so that all of them are on one thread or none.
    shares, counts = zip(*gathered(most, count), strict=True)
    if cfg.follows_load and on_cpu and max(shares) > 1:
        first = -1 if min(counts) == 1 else 0
        ways = (Way(most), *_asleep(most), Way(1))
        return FollowingThreads(ways, first % len(ways))
    ways = (Way(count), *_asleep(count))
    return FollowingThreads(ways) if on_cpu and max(counts) > 1 and len(ways) > 1 else None


def _asleep(count: int) -> tuple[Way, ...]:
    """The way of threads that sleep while they wait, where it is ours to choose."""
    chosen = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys()
    return () if chosen or sys.platform != "linux" else (Way(count, spinning=False),)


def _are_enough(steps: list[float]) -> bool:
    long = min(steps, default=0.0) > LONG_STEP
    return len(steps) >= (2 if long else FEWEST_STEPS) and sum(steps) >= LEAST_SECONDS


def _typical(steps: list[float]) -> float:
    """The mean without the slowest, which something else may have held up. Not the median: it does not see stalls."""
    return mean(sorted(steps)[: max(1, len(steps) - 1)])


def _newest(steps: list[float]) -> list[float]:
    """The last steps that are enough."""
    while _are_enough(steps[1:]):
        steps = steps[1:]
    return steps


class _Sleepers:
    """Threads that do nothing, for whose sake others go to sleep sooner.

    GNU's OpenMP (libgomp) reads from the environment how long threads spin before they sleep, when it is loaded. But
    where there are more threads than cores, they spin 100 times instead of 300,000, as its manual says of
    GOMP_SPINCOUNT. So a second team is kept, asleep.
    """

    def __init__(self) -> None:
        self._awake: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def keep(self, wanted: bool) -> None:
        """Keeps them from now on, or ends them."""
        if wanted and self._awake is None:
            self._awake, ready = threading.Event(), threading.Event()
            self._thread = threading.Thread(target=self._sleep, args=(self._awake, ready), daemon=True)
            self._thread.start()
            ready.wait()
        elif not wanted and self._awake is not None and self._thread is not None:
            self._awake.set()
            self._thread.join()
            self._awake = self._thread = None

    @staticmethod
    def _sleep(awake: threading.Event, ready: threading.Event) -> None:
        try:
            # A team belongs to the thread that began it, and ends with it. (PyTorch shares out work in pieces of 32,768
            # numbers. What it is told of threads counts for those of later threads too, so it is told again.)
            count, cores = torch.get_num_threads(), available_cores()
            torch.set_num_threads(cores)
            torch.ones(cores << 16).add_(1)
            torch.set_num_threads(count)
        finally:
            ready.set()
        awake.wait()


_sleepers = _Sleepers()
