"""Timing by which contestants can be compared: they take turns, so that what disturbs one disturbs the other."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, Protocol

import torch

from vqvideo.training.hardware import available_cores

Work = Callable[[], object]


class Contestant(Protocol):
    """A frozen value that says what is to be measured, so that a fresh process can build it too."""

    @property
    def name(self) -> str:
        """Shown in tables."""

    def prepare(self, device: torch.device) -> Work:
        """What is called repeatedly, its inputs and weights in place."""


@dataclass(frozen=True)
class Timing:
    """Seconds per call, one figure per round."""

    rounds: tuple[float, ...]
    """Mean over the calls of each round."""
    calls: int
    """Calls per round."""

    @property
    def median(self) -> float:
        """Seconds per call."""
        return median(self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        """First and third quartile, in seconds per call."""
        return _quartiles(self.rounds)

    def to_json(self) -> dict[str, Any]:
        """What a record says about it."""
        return {
            "seconds": self.median,
            "seconds_quartiles": self.spread,
            "seconds_rounds": self.rounds,
            "calls_per_round": self.calls,
        }


@dataclass(frozen=True)
class Ratio:
    """How many times faster one contestant is than another."""

    of_medians: float
    """Median seconds of the other over the median seconds of this one."""
    low: float
    """First quartile of the ratios within each round."""
    high: float
    """Third quartile of the ratios within each round."""

    def __str__(self) -> str:
        return f"{self.of_medians:.2f} ({self.low:.2f}-{self.high:.2f})"


def speed_ratio(this: Timing, other: Timing) -> Ratio:
    """How many times faster `this` is, both from the same `take_turns`."""
    low, high = _quartiles([o / t for t, o in zip(this.rounds, other.rounds, strict=True)])
    return Ratio(other.median / this.median, low, high)


def take_turns(
    contestants: Mapping[str, Work], device: torch.device, rounds: int, round_seconds: float
) -> dict[str, Timing]:
    """Times contestants in alternating order: A B, B A, A B, ...

    Args:
        contestants: what to call, by name. Each is called once or twice before the first round.
        device: where they compute; its queue is drained before the clock is read.
        rounds: how often each has its turn.
        round_seconds: how long a turn lasts at least; short calls are repeated.
    """
    calls = {name: _calls_for(work, device, round_seconds) for name, work in contestants.items()}
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            taken[name].append(_seconds(contestants[name], calls[name], device) / calls[name])
    return {name: Timing(tuple(seconds), calls[name]) for name, seconds in taken.items()}


def devices() -> list[torch.device]:
    """The CPU, and the GPU if there is one."""
    return [torch.device(kind) for kind in (("cpu", "cuda") if torch.cuda.is_available() else ("cpu",))]


def thread_counts(device: torch.device, *, quick: bool = False) -> list[int]:
    """One thread, and all cores if the CPU computes."""
    return sorted({1, 1 if quick or device.type == "cuda" else max(1, available_cores())})


def devices_with_threads(count: int | None, *, quick: bool = False) -> list[tuple[torch.device, int]]:
    """Each device with the threads to measure on: as many as asked for, or else the most."""
    return [(device, count or thread_counts(device, quick=quick)[-1]) for device in devices()]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Computes with `count` CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def synchronise(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _calls_for(work: Work, device: torch.device, round_seconds: float) -> int:
    work()
    once = _seconds(work, 1, device)
    return max(1, min(10_000, round(round_seconds / max(once, 1e-6))))


def _seconds(work: Work, calls: int, device: torch.device) -> float:
    """Without the garbage collector, whose turn would come in one contestant's time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        synchronise(device)
        began = time.perf_counter()
        for _ in range(calls):
            work()
        synchronise(device)
        return time.perf_counter() - began
    finally:
        if collecting:
            gc.enable()


def _quartiles(values: tuple[float, ...] | list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high
