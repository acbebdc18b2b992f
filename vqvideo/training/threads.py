"""Threads that follow the load: a training computes on one thread or on all, whichever is faster at the moment.

Threads wait for each other at every small operation. Where other programs keep a core busy, the one whose turn does not
come holds up all others, and a single thread is several times faster; alone on the machine it is slower. Which of the
two is the case changes while a run lasts, so a few of its own steps are taken on the other number now and then.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from statistics import median

import torch

from vqvideo.training.config import TrainConfig
from vqvideo.training.hardware import available_cores
from vqvideo.training.processes import gathered

CLEARLY = 0.9
"""What takes less than this share of the time is faster; anything else is noise."""
SLOWED = 1.3
"""Steps that take so many times as long as before are a reason to look again at once."""
HOPELESS = 2.0
"""A trial ends with the first step that takes so many times as long as those before it."""
FEWEST_STEPS = 3
LEAST_SECONDS = 0.1
"""A median is taken over so many steps and so much time."""
FIRST_WAIT = 3.0
LONGEST_WAIT = 30.0
"""Seconds between trials; they double from the one to the other while nothing changes."""
SHARE_OF_TIME = 0.05
"""What trials may cost at most: after an expensive one the next comes later."""
SECONDS_BETWEEN_LINES = 30.0
"""Where the load comes and goes, the log has every change and the screen some."""


@dataclass(frozen=True)
class Switch:
    """A change of the number of threads."""

    threads: int
    """From now on."""
    seconds: float
    """Of a step on so many, the median of a few."""
    before: int
    """Threads up to now."""
    seconds_before: float
    """Of a step on those."""
    telling: bool
    """Whether it is long since the last one that was told."""

    def __str__(self) -> str:
        return (
            f"threads {self.threads}: {self.seconds:.3g} s a step, with {self.before} it was {self.seconds_before:.3g}"
        )


class FollowingThreads:
    """Chooses between one thread and `most` from how long steps take, and from nothing else: ranks that are told the
    same seconds choose alike without a word.

    Args:
        most: threads, where it is not one.
        single: whether the first steps are taken on one.
    """

    def __init__(self, most: int, *, single: bool) -> None:
        self.most, self.single = most, single
        self._recent: list[float] = []
        self._trial: list[float] | None = None
        self._usual: float | None = None
        self._since, self._wait = 0.0, FIRST_WAIT
        self._untold = SECONDS_BETWEEN_LINES

    @property
    def kept(self) -> int:
        """Threads, trials apart."""
        return 1 if self.single else self.most

    @property
    def now(self) -> int:
        """Threads of the next step."""
        return 1 if self.single == (self._trial is None) else self.most

    def took(self, seconds: float) -> Switch | None:
        """Takes notice of a step that was taken on `now` threads. Returns a change that follows from it."""
        self._since += seconds
        self._untold += seconds
        if self._trial is None:
            self._recent = _newest([*self._recent, seconds])
            if self._is_due():
                self._trial = []
            return None
        self._trial.append(seconds)
        hopeless = seconds > HOPELESS * median(self._recent)
        # The first step on another number of threads prepares what later ones find ready.
        if hopeless or _are_enough(self._trial[1:]):
            return self._decide(self._trial, hopeless=hopeless)
        return None

    def _is_due(self) -> bool:
        if not _are_enough(self._recent):
            return False
        slowed = self._usual is not None and min(self._recent[-2:]) > SLOWED * self._usual
        return self._since >= (FIRST_WAIT if slowed else self._wait)

    def _decide(self, trial: list[float], *, hopeless: bool) -> Switch | None:
        before, after = median(self._recent), median(trial[1:] or trial)
        lost = sum(trial) - len(trial) * before
        self._trial, self._since = None, 0.0
        if not hopeless and after < CLEARLY * before:
            threads_before, self.single = self.kept, not self.single
            self._recent, self._usual, self._wait = _newest(trial[1:]), after, FIRST_WAIT
            telling = self._untold > SECONDS_BETWEEN_LINES
            self._untold = 0.0 if telling else self._untold
            return Switch(self.kept, after, threads_before, before, telling)
        self._usual = before
        self._wait = max(min(2 * self._wait, LONGEST_WAIT), lost / SHARE_OF_TIME)
        return None


def following_threads(cfg: TrainConfig, *, on_cpu: bool) -> FollowingThreads | None:
    """What follows the load in a run, from the number of threads that it begins with; None where nothing does: on a
    GPU, with a core for each process, or with a number of threads that is given or kept. Collective.

    Args:
        cfg: how to train.
        on_cpu: whether the CPU computes.
    """
    most = max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    # A rank waits for the others in every step, so all of them are on one thread or none.
    shares, counts = zip(*gathered(most, torch.get_num_threads()), strict=True)
    if not (cfg.follows_load and on_cpu and max(shares) > 1):
        return None
    return FollowingThreads(most, single=min(counts) == 1 < max(shares))


def _are_enough(steps: list[float]) -> bool:
    return len(steps) >= FEWEST_STEPS and sum(steps) >= LEAST_SECONDS


def _newest(steps: list[float]) -> list[float]:
    """The last steps that are enough."""
    while _are_enough(steps[1:]):
        steps = steps[1:]
    return steps
