"""Speed and memory of nearest-code search, encoding and training step of the EMA quantizer beside its peers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from vqvideo.scripts.benchmarks.memory import peak_memory
from vqvideo.scripts.benchmarks.quantizer_contestants import WORKS, Entry, Problem, entries, peer_is_installed
from vqvideo.scripts.benchmarks.report import Table, megabytes, rate
from vqvideo.scripts.benchmarks.timing import speed_ratio, take_turns, threads

COLUMNS = ("work", "contestant", "vectors/s", "ms", "quartiles", "first is x faster", "peak MB", "same codes")


def measure_quantizers(
    problems: Sequence[Problem], thread_counts: Sequence[int], device: torch.device, rounds: int, round_seconds: float
) -> tuple[list[dict[str, Any]], list[Table]]:
    """Figures and tables of all problems.

    Returns:
        A record per contestant, and a table per problem and thread count.
    """
    records, tables = [], []
    for problem in problems:
        for count in thread_counts:
            title = f"quantizer, {problem} (vectors x codes x width), fp32, {device.type}, {count} thread(s)"
            contests = [entries(problem, work, with_peer=peer_is_installed()) for work in WORKS]
            found = [r for contest in contests for r in _measure(contest, count, device, rounds, round_seconds)]
            records += found
            tables.append(Table(title, COLUMNS, [_row(record) for record in found]))
    return records, tables


def _measure(
    contest: Sequence[Entry], count: int, device: torch.device, rounds: int, round_seconds: float
) -> list[dict[str, Any]]:
    with threads(count):
        work = {entry.name: entry.prepare(device) for entry in contest}
        # The first call of each, before learning has moved any codebook.
        codes = {name: torch.as_tensor(call()) for name, call in work.items()}
        timings = take_turns(work, device, rounds, round_seconds)
    first = contest[0].name
    return [
        {
            "work": entry.work,
            "contestant": entry.name,
            "problem": asdict(entry.problem),
            "threads": count,
            "device": device.type,
            "vectors_per_s": entry.problem.vectors / timings[entry.name].median,
            **timings[entry.name].to_json(),
            "first_is_times_faster": asdict(speed_ratio(timings[first], timings[entry.name])),
            "peak_bytes": peak_memory(entry, device, count),
            "same_codes_as_first": (codes[entry.name] == codes[first]).float().mean().item(),
        }
        for entry in contest
    ]


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    low, high = (1e3 * s for s in record["seconds_quartiles"])
    ratio = record["first_is_times_faster"]
    return (
        record["work"],
        record["contestant"],
        rate(record["vectors_per_s"]),
        f"{1e3 * record['seconds']:.2f}",
        f"{low:.2f}-{high:.2f}",
        f"{ratio['of_medians']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})",
        megabytes(record["peak_bytes"]),
        f"{record['same_codes_as_first']:.2%}",
    )
