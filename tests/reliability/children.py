"""Actions in child processes: how each ended, how long it took, and by how much memory it grew."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

from vqvideo.errors import InputError

MOST_GROWTH = 256
"""MiB by which a child may grow while it refuses a file."""
DEADLINE = 10.0
"""Seconds after which a child hangs. (How long a refusal takes is measured, not judged: machines differ.)"""


class Ended(NamedTuple):
    """How something went in a child process."""

    kind: str
    """Class of the error; "" for none, "hung" or "died"."""
    message: str
    growth: float
    """MiB between the memory at the start and the most in between."""
    seconds: float

    @property
    def refused(self) -> bool:
        """Whether it ended with an error of ours."""
        return self.kind == "InputError"


def in_child(action: Callable[[], object], deadline: float = DEADLINE) -> Ended:
    """Runs `action` in a forked child, which is killed past its deadline."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_report, args=(action, there))
    child.start()
    there.close()
    try:
        return here.recv() if here.poll(deadline) else Ended("hung", f"for {deadline:g} s", 0.0, deadline)
    except EOFError:
        child.join()
        return Ended("died", f"with code {child.exitcode}", 0.0, 0.0)
    finally:
        child.kill()
        child.join()


def _report(action: Callable[[], object], there: Connection) -> None:
    # As in the workers of a DataLoader: a fork does not inherit the threads of its parent.
    torch.set_num_threads(1)
    logging.disable()
    kind, message = "", ""
    # A fork inherits the peak of its parent, below which nothing would show.
    Path("/proc/self/clear_refs").write_text("5")
    start, began = _most_memory(), time.perf_counter()
    try:
        with redirect_stderr(io.StringIO()):
            action()
    except BaseException as error:
        kind = "InputError" if isinstance(error, InputError) else type(error).__name__
        message = str(error)
    there.send(Ended(kind, message[:2000], _most_memory() - start, time.perf_counter() - began))
    there.close()
    os._exit(0)


def _most_memory() -> float:
    """MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
