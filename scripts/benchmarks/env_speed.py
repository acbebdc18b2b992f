"""Imagined steps per second of an environment, beside bare stepping of its world and beside other environments."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from vqvideo.scripts.benchmarks.env_contestants import BARE, Clocked
from vqvideo.scripts.benchmarks.report import Table, rate
from vqvideo.scripts.benchmarks.timing import Timing, Work, speed_ratio, take_turns, threads

COLUMNS = (
    "streams, contestant",
    "steps/s",
    "quartiles",
    "ms/call",
    "x bare",
    "CPU ms/call",
    "CPU x bare",
    "ends/1000 steps",
)


@dataclass(frozen=True)
class Turns:
    """How contestants take turns."""

    device: torch.device
    """Where they compute."""
    cpu_threads: int
    """Threads of the CPU."""
    rounds: int
    """How often each has its turn."""
    seconds: float
    """How long a turn lasts at least."""

    def __str__(self) -> str:
        return f"{self.device.type}, {self.cpu_threads} thread(s)"

    @property
    def facts(self) -> dict[str, Any]:
        """What every record tells."""
        return {"threads": self.cpu_threads, "device": self.device.type}

    def time(self, works: Mapping[str, Work]) -> dict[str, Timing]:
        """Times of all, by name."""
        with threads(self.cpu_threads):
            return take_turns(works, self.device, self.rounds, self.seconds)


def measure_steps(steps: Mapping[str, Callable[[], int]], streams: int, turns: Turns) -> list[dict[str, Any]]:
    """A record for each contestant; they take turns.

    Args:
        steps: of equally many streams, by name, `BARE` among them; each call tells how many episodes ended in it.
        streams: how many.
        turns: how they take turns.
    """
    clocked, load = {name: Clocked(step) for name, step in steps.items()}, load_average()
    timings = turns.time(clocked)
    facts = {"streams": streams, "load_before": load, **turns.facts}
    return [
        {"contestant": name, **facts, **_figures(clocked[name], clocked[BARE], timing, timings[BARE], streams)}
        for name, timing in timings.items()
    ]


def table_of_steps(records: Sequence[Mapping[str, Any]], title: str) -> Table:
    """The records for reading."""
    return Table(title, COLUMNS, [_row(record) for record in records])


def load_average() -> float | None:
    """Processes that wanted to run in the last minute, this one included; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _figures(clocked: Clocked, bare: Clocked, timing: Timing, bare_timing: Timing, streams: int) -> dict[str, Any]:
    low, high = timing.spread
    return {
        "steps_per_s": streams / timing.median,
        "steps_per_s_quartiles": (streams / high, streams / low),
        "seconds": timing.median,
        "seconds_rounds": timing.rounds,
        "calls_per_round": timing.calls,
        "cpu_seconds": clocked.cpu_seconds,
        "time_over_bare": asdict(speed_ratio(bare_timing, timing)),
        "cpu_time_over_bare": clocked.cpu_seconds / bare.cpu_seconds,
        "ends_per_step": clocked.ended / streams,
    }


def _row(record: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = record["steps_per_s_quartiles"]
    ratio = record["time_over_bare"]
    return (
        f"{record['streams']}, {record['contestant']}",
        rate(record["steps_per_s"]),
        f"{rate(low)}-{rate(high)}",
        f"{1e3 * record['seconds']:.2f}",
        f"{ratio['of_medians']:.3f} ({ratio['low']:.3f}-{ratio['high']:.3f})",
        f"{1e3 * record['cpu_seconds']:.2f}",
        f"{record['cpu_time_over_bare']:.3f}",
        f"{1e3 * record['ends_per_step']:.1f}",
    )
