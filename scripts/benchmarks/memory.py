"""Peak memory of one call.

On a GPU: the peak of the allocator's counter above what was allocated before the call.

On the CPU: the peak of the resident set above its size before the call, in a process of its own for each contestant
(what one contestant leaves in the heap would otherwise hide what the next one takes). Libraries load code and tables
at the first call, so the call is made once before; then the heap's free pages are given back and the kernel's
high-water mark is reset (Linux). Inputs and weights are there before and do not count; results and activations do.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

from vqvideo.scripts.benchmarks.resident import peak_resident_bytes, resident_bytes
from vqvideo.scripts.benchmarks.timing import Contestant, Work, synchronise

R = TypeVar("R")
# Those that a contestant would import take seconds; the server of fresh processes does it once.
_PRELOAD = ["vqvideo.world", "vqvideo.scripts.benchmarks.size_costs", "torch._dynamo", "vector_quantize_pytorch"]
_CLEAR = Path("/proc/self/clear_refs")


def peak_memory(contestant: Contestant, device: torch.device, cpu_threads: int) -> int:
    """Bytes that a call takes at its peak."""
    if device.type == "cuda":
        return _on_gpu(contestant.prepare(device), device)
    return in_fresh_process(_on_cpu, contestant, cpu_threads)


def in_fresh_process(function: Callable[..., R], *arguments: Any) -> R:
    """The result of a module's function in a process that has imported packages and done nothing else."""
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload(_PRELOAD)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def _on_gpu(work: Work, device: torch.device) -> int:
    work()
    synchronise(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    synchronise(device)
    return torch.cuda.max_memory_allocated(device) - before


def _on_cpu(contestant: Contestant, cpu_threads: int) -> int:
    torch.set_num_threads(cpu_threads)
    work = contestant.prepare(torch.device("cpu"))
    work()
    gc.collect()
    give_back_free_pages()
    if _CLEAR.exists():
        _CLEAR.write_text("5")  # the high-water mark falls to the present size
        before = resident_bytes()
    else:
        before = peak_resident_bytes()
    work()
    return max(0, peak_resident_bytes() - before)


def give_back_free_pages() -> None:
    """Returns what was freed to the system, where the C library can."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
