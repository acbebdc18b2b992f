"""Imagined frames per second, decoding included, for each head; where the time of a step goes, and the memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

import torch

from vqvideo.scripts.benchmarks.dream_parts import PARTS, parts_of
from vqvideo.scripts.benchmarks.dreams import BASELINE, Dreams, state_bytes
from vqvideo.scripts.benchmarks.memory import peak_memory
from vqvideo.scripts.benchmarks.report import Table, megabytes, rate
from vqvideo.scripts.benchmarks.timing import Timing, Work, speed_ratio, take_turns, threads

R = TypeVar("R")
COLUMNS = (
    "streams, head",
    "precision",
    "mode",
    "frames/s",
    "quartiles",
    "ms/step",
    f"x {BASELINE}",
    *(f"{part} %" for part in PARTS),
    "state kB/stream",
    "peak MB",
)


class Contest:
    """One contestant under way, or the reason why it fell out: what a compiler makes may fail at any step."""

    def __init__(self, entry: Dreams, device: torch.device) -> None:
        self.entry, self.device = entry, device
        self.reason: str | None = None
        self.dreaming = self._tried(lambda: entry.begin(device))

    def __call__(self) -> object:
        if self.dreaming is None or self.reason:
            return None
        dreaming = self.dreaming
        return self._tried(lambda: self.within(lambda: self.entry.step(dreaming)))

    def within(self, function: Callable[[], R]) -> R:
        """Calls it in the precision of the contestant, without gradients."""
        with torch.no_grad(), self.entry.autocast(self.device):
            return function()

    def parts(self, steps: int) -> dict[str, float]:
        """Shares of the parts of a step, over some steps; of compiled ones no parts are to be had."""
        if self.dreaming is None or self.entry.mode != "eager":
            return {}
        found = parts_of(self.dreaming, self, steps, self.device)
        whole = found.pop("whole")
        return {name: seconds / whole for name, seconds in found.items()}

    def _tried(self, function: Callable[[], R]) -> R | None:
        if self.entry.mode == "eager":
            return function()
        try:
            return function()
        except Exception as error:  # there is no list of what compilers raise, and the other figures are to come
            self.reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            return None


def measure_imagination(
    entries: Sequence[Dreams], cpu_threads: int, device: torch.device, rounds: int, round_seconds: float
) -> list[dict[str, Any]]:
    """A record for each contestant; they take turns. One that cannot be compiled has a `reason` and no figures.

    Args:
        entries: contestants with equally many streams.
        cpu_threads: threads of the CPU.
        device: where they compute.
        rounds: how often each has its turn.
        round_seconds: how long a turn lasts at least.
    """
    with threads(cpu_threads):
        contests = [Contest(entry, device) for entry in entries]
        works: dict[str, Work] = {contest.entry.name: contest for contest in contests}
        timings = take_turns(works, device, rounds, round_seconds)
        shares = [contest.parts(3 * rounds) for contest in contests]
    for contest in contests:
        if contest.reason:  # it was timed doing nothing
            del timings[contest.entry.name]
    return [_record(contest, timings, own, cpu_threads, device) for contest, own in zip(contests, shares, strict=True)]


def table(records: Sequence[Mapping[str, Any]], title: str) -> Table:
    """The records for reading."""
    return Table(title, COLUMNS, [_row(record) for record in records])


def _record(
    contest: Contest,
    timings: Mapping[str, Timing],
    shares: dict[str, float],
    cpu_threads: int,
    device: torch.device,
) -> dict[str, Any]:
    entry, dreaming = contest.entry, contest.dreaming
    record = {
        "streams": entry.streams,
        "head": entry.head,
        "precision": entry.precision,
        "mode": entry.mode,
        "threads": cpu_threads,
        "device": device.type,
        "reason": contest.reason,
    }
    if dreaming is None or contest.reason:
        return record
    timing, frames = timings[entry.name], entry.streams * dreaming.world.stride
    low, high = timing.spread
    return record | {
        "frames_per_s": frames / timing.median,
        "frames_per_s_quartiles": (frames / high, frames / low),
        **timing.to_json(),
        "times_faster_than_autoregressive": _ratio(entry, timings),
        "shares": shares,
        "state_bytes_per_stream": state_bytes(dreaming.state) / entry.streams,
        # A process of its own would compile all over again.
        "peak_bytes": peak_memory(entry, device, cpu_threads) if entry.mode == "eager" else None,
    }


def _ratio(entry: Dreams, timings: Mapping[str, Timing]) -> dict[str, float] | None:
    """Over the autoregressive head in the same precision and mode, if that was measured."""
    other = timings.get(replace(entry, head=BASELINE).name)
    return asdict(speed_ratio(timings[entry.name], other)) if other else None


def _row(record: Mapping[str, Any]) -> tuple[str, ...]:
    names = (f"{record['streams']}, {record['head']}", record["precision"], record["mode"])
    if record["reason"]:
        return (*names, *["-"] * (len(COLUMNS) - len(names)))
    ratio, shares, peak = record["times_faster_than_autoregressive"], record["shares"], record["peak_bytes"]
    low, high = record["frames_per_s_quartiles"]
    return (
        *names,
        rate(record["frames_per_s"]),
        f"{rate(low)}-{rate(high)}",
        f"{1e3 * record['seconds']:.2f}",
        f"{ratio['of_medians']:.2f}" if ratio else "-",
        *(f"{shares[part]:.0%}" if part in shares else "-" for part in PARTS),
        f"{record['state_bytes_per_stream'] / 1e3:,.0f}",
        "-" if peak is None else megabytes(peak),
    )
