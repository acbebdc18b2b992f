"""One stream, or one dream, for thousands of steps: neither the time of a step nor the memory may grow."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch

from vqvideo.scripts.benchmarks.memory import give_back_free_pages, in_fresh_process
from vqvideo.scripts.benchmarks.report import Table
from vqvideo.scripts.benchmarks.resident import resident_bytes
from vqvideo.scripts.benchmarks.timing import Contestant, Work, synchronise


def measure_long_run(
    contestant: Contestant, steps: int, cpu_threads: int, device: torch.device
) -> tuple[dict[str, Any], Table]:
    """Goes on step by step, in a process of its own.

    Args:
        contestant: what steps.
        steps: how often.
        cpu_threads: threads of the process.
        device: where it computes.

    Returns:
        Record and table: milliseconds per step over the first and the last tenth, and the growth of the memory from
        the end of the first tenth to the end: of the resident set on the CPU, of the allocator's counter on a GPU.
    """
    window = max(1, steps // 10)
    record = in_fresh_process(_run, contestant, steps, window, cpu_threads, device.type)
    title = f"{steps:,} steps, {device.type}, {cpu_threads} thread(s)"
    first, last = f"ms/step, first {window:,}", f"ms/step, last {window:,}"
    table = Table(title, ("", first, last, f"memory growth after {window:,}, kB"))
    growth = f"{record['growth_bytes'] / 1e3:,.0f}"
    table.rows.append((contestant.name, f"{record['first_ms']:.3f}", f"{record['last_ms']:.3f}", growth))
    return {"threads": cpu_threads, "device": device.type, **record}, table


def watch(step: Work, steps: int, window: int, device: torch.device) -> dict[str, Any]:
    """Calls `step` over and over: milliseconds per call over the first and the last `window` calls, and how much the
    memory has grown since the end of the first.
    """
    seconds, memory = [], {}
    for number in range(1, steps + 1):
        began = time.perf_counter()
        step()
        synchronise(device)
        seconds.append(time.perf_counter() - began)
        if number in (window, steps):
            memory[number] = _in_use(device)
    return {
        "steps": steps,
        "window": window,
        "first_ms": 1e3 * median(seconds[:window]),
        "last_ms": 1e3 * median(seconds[-window:]),
        "growth_bytes": memory[steps] - memory[window],
    }


@torch.no_grad()
def _run(contestant: Contestant, steps: int, window: int, cpu_threads: int, device_type: str) -> dict[str, Any]:
    torch.set_num_threads(cpu_threads)
    device = torch.device(device_type)
    return watch(contestant.prepare(device), steps, window, device)


def _in_use(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    # What is free in the heap is no growth; how much of it there is wavers.
    give_back_free_pages()
    return resident_bytes()
