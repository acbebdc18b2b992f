"""Batches on CPUs, part by part: what a part of the rows needs stays in the cache of a core, and the cores take parts
side by side.

PyTorch shares the work of each operation between threads instead. Where operations are as short as in an imagined
step, those threads wait for each other most of the time, and where other work keeps one core busy, all wait for that
one.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

LARGEST = 16
"""Rows of a part at most. Chosen, not tuned."""
SMALLEST = 2
"""Rows of a part at least: threads take turns in Python, so that small parts gain little. Chosen, not tuned."""

FEW = 4
"""Rows of one part up to which its results are copied for the sake of inference mode. Chosen, not tuned."""

Parts = tuple[Tensor, ...]
"""Results (rows, ...)."""


class _Threads(threading.local):
    """How many threads `in_parts` may use, for each thread that calls it."""

    count = 1


_threads = _Threads()


@contextmanager
def side_by_side(device: torch.device, rows: int) -> Iterator[None]:
    """Here `in_parts` shares the parts between the threads that PyTorch has, and everything else takes one: threads
    that wait for the next operation would keep the cores busy. Afterwards all is as it was.

    Too few rows to be shared leave the threads to the operations: a single stream was a fourth faster so.

    Args:
        device: where is computed.
        rows: how many there are.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or rows < 2 * SMALLEST or torch.compiler.is_compiling():
        yield
        return
    _threads.count = threads
    # OpenMP's count is a thread's own, MKL's that of the process: it must be set here, and not where the parts are.
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _threads.count = 1


def in_parts(compute: Callable[[slice], Parts], rows: int, device: torch.device) -> Parts:
    """`compute(slice(0, rows))`, on CPUs put together from parts of the rows.

    Equal numbers of rows and threads make equal parts, each of which is computed on one thread: so the results are
    equal too, bit by bit. They are copies of what was computed: where no gradients are wanted, it was in inference
    mode, in which layers of a single stream took 6 to 8 % less time.

    Args:
        compute: from some of the rows to their results. Several threads call it at once.
        rows: how many there are.
        device: where they are computed.
    """
    # A compiler sees one batch, and shares the work as it likes.
    if device.type != "cpu" or torch.compiler.is_compiling():
        return compute(slice(0, rows))
    parts = list(_parts(rows, _threads.count))
    if len(parts) == 1 and rows > FEW:
        return compute(parts[0])
    results: list[Parts] = [()] * len(parts)
    todo, modes = deque(enumerate(parts)), _modes()

    def work() -> None:
        with modes():
            while todo:
                try:
                    number, part = todo.popleft()
                except IndexError:  # another thread took the last one
                    return
                results[number] = compute(part)

    _together(work, helpers=min(_threads.count, len(parts)) - 1)
    return tuple(torch.cat(each) for each in zip(*results, strict=True))


def _parts(rows: int, threads: int) -> Iterator[slice]:
    """Equal parts, as many for each thread."""
    threads = max(1, min(threads, rows // SMALLEST))
    count = threads * -(-rows // (threads * LARGEST))
    return (slice(first, last) for first, last in pairwise(rows * i // count for i in range(count + 1)))


def _together(work: Callable[[], None], helpers: int) -> None:
    """Works with so many others; returns when all have ended, and raises what one has raised."""
    futures = [_pool(os.getpid()).submit(work) for _ in range(helpers)]
    try:
        work()
    finally:
        wait(futures)
    for future in futures:
        future.result()


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Of a process: its threads do not survive a fork."""
    return ThreadPoolExecutor(os.cpu_count(), "vqvideo-rows", initializer=torch.set_num_threads, initargs=(1,))


def _modes() -> Callable[[], ExitStack]:
    """What PyTorch keeps for each thread, as it is for this one: autocast, and gradients or else inference mode."""
    gradients = torch.is_grad_enabled()
    autocast, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def entered() -> ExitStack:
        stack = ExitStack()
        stack.enter_context(torch.inference_mode(not gradients))
        if autocast:
            stack.enter_context(torch.autocast("cpu", dtype))
        return stack

    return entered
