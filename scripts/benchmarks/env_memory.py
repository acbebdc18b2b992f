"""An imagined environment played for long: memory may not grow, however many episodes have begun and ended."""

from __future__ import annotations

import gc
from typing import Any

import torch

from vqvideo.scripts.benchmarks.env_contestants import Plan, Playing
from vqvideo.scripts.benchmarks.memory import give_back_free_pages, in_fresh_process, resident_bytes
from vqvideo.scripts.benchmarks.report import Table
from vqvideo.scripts.benchmarks.timing import Work

EARLY = 2_000
"""Imagined steps after which everything that is allocated once has been allocated."""
_LOOKS = 10
"""How often memory is looked at after that."""


def measure_growth(
    plan: Plan, streams: int, steps: int, cpu_threads: int, device: torch.device
) -> tuple[dict[str, Any], Table]:
    """Plays on in a process of its own.

    Args:
        plan: what is played.
        streams: rows of the environment.
        steps: imagined steps over all rows, calls x rows.
        cpu_threads: threads of the process.
        device: where it computes.

    Returns:
        Record and table: the resident set of the process after the first steps and at the end; on a GPU the counter of
        its allocator, too.
    """
    record = in_fresh_process(_play, plan, streams, steps, cpu_threads, device.type)
    title = f"memory over {record['steps'][-1]:,} imagined steps, {device.type}, {cpu_threads} thread(s)"
    early = f"MiB after {record['steps'][0]:,}"
    table = Table(title, ("", early, "MiB at the end", "growth, MiB", "episodes ended"))
    for kind, held in record["bytes"].items():
        figures = (held[0], held[-1], record["growth_bytes"][kind])
        cells = [f"{count / 2**20:.2f}" for count in figures]
        table.rows.append((f"{streams} streams, {kind}", *cells, f"{record['ended']:,}"))
    return record, table


def watch_memory(step: Work, early: int, calls: int, device: torch.device) -> dict[str, Any]:
    """Calls `step` over and over, and looks at the memory after the first `early` calls, at the end, and in between.

    Returns:
        `calls`: after which it looked; `bytes`: what was held then, by kind of memory; `growth_bytes`: the last less
        the first, by kind.
    """
    looks = sorted({early + (calls - early) * i // _LOOKS for i in range(_LOOKS + 1)})
    held: dict[str, list[int]] = {}
    for call in range(1, calls + 1):
        step()
        if call in looks:
            for kind, count in _held(device).items():
                held.setdefault(kind, []).append(count)
    return {"calls": looks, "bytes": held, "growth_bytes": {kind: seen[-1] - seen[0] for kind, seen in held.items()}}


def _play(plan: Plan, streams: int, steps: int, cpu_threads: int, device_type: str) -> dict[str, Any]:
    torch.set_num_threads(cpu_threads)
    device = torch.device(device_type)
    playing, ended = Playing(plan.begin(device).envs(streams)), 0

    def step() -> None:
        nonlocal ended
        ended += playing()

    calls = -(-steps // streams)
    found = watch_memory(step, max(1, min(EARLY // streams, calls // 2)), calls, device)
    facts = {"streams": streams, "threads": cpu_threads, "device": device_type, "ended": ended}
    return facts | found | {"steps": [call * streams for call in found["calls"]]}


def _held(device: torch.device) -> dict[str, int]:
    # What awaits collection, and what is free in the heap, is no growth; how much of it there is wavers.
    gc.collect()
    give_back_free_pages()
    held = {"resident": resident_bytes()}
    return held if device.type == "cpu" else held | {"on the GPU": torch.cuda.memory_allocated(device)}
