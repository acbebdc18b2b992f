"""One dream for thousands of latent steps: its end may cost no more time and no more memory than its beginning."""

from __future__ import annotations

from typing import Any

import torch

from vqvideo.scripts.benchmarks.dreams import Dreams
from vqvideo.scripts.benchmarks.memory import in_fresh_process
from vqvideo.scripts.benchmarks.report import Table
from vqvideo.scripts.benchmarks.streaming import watch


def measure_long_dream(
    dreams: Dreams, steps: int, cpu_threads: int, device: torch.device
) -> tuple[dict[str, Any], Table]:
    """Dreams on step by step, in a process of its own.

    Args:
        dreams: what dreams.
        steps: latent steps.
        cpu_threads: threads of the process.
        device: where it computes.

    Returns:
        Record and table: milliseconds per latent step over the first and the last tenth, and the growth of the memory
        from the end of the first tenth to the end.
    """
    window = max(1, steps // 10)
    record = in_fresh_process(_dream, dreams, steps, window, cpu_threads, device.type)
    title = f"one dream of {steps:,} latent steps, {dreams.name}, {device.type}, {cpu_threads} thread(s)"
    first, last = f"ms/step, first {window:,}", f"ms/step, last {window:,}"
    table = Table(title, ("", first, last, f"memory growth after {window:,}, kB"))
    growth = f"{record['growth_bytes'] / 1e3:,.0f}"
    table.rows.append((f"{dreams.streams} stream", f"{record['first_ms']:.3f}", f"{record['last_ms']:.3f}", growth))
    return record, table


def _dream(dreams: Dreams, steps: int, window: int, cpu_threads: int, device_type: str) -> dict[str, Any]:
    torch.set_num_threads(cpu_threads)
    device = torch.device(device_type)
    facts = {"head": dreams.head, "precision": dreams.precision, "threads": cpu_threads, "device": device_type}
    return facts | watch(dreams.prepare(device), steps, window, device)
