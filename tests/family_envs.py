"""Environments that start processes or threads, and note the numbers of the processes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
from recordings import is_running
from stub_envs import BreakingEnv, StubEnv


def _popen() -> list[int]:
    return [subprocess.Popen(["sleep", "600"]).pid]


def _process(method: str) -> list[int]:
    process = multiprocessing.get_context(method).Process(target=time.sleep, args=(600,))
    process.start()
    return [process.pid or 0]


def _pool() -> list[int]:
    pool = multiprocessing.get_context("fork").Pool(2)
    return pool.map(_pid, range(2))


def _pid(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def _vector() -> list[int]:
    vector = gymnasium.vector.AsyncVectorEnv([StubEnv, StubEnv])
    vector.reset(seed=0)
    return [process.pid or 0 for process in vector.processes]


def _thread() -> list[int]:
    threading.Thread(target=time.sleep, args=(600,)).start()
    return []


CHILDREN: dict[str, Callable[[], list[int]]] = {
    "a program": _popen,
    "a forked process": lambda: _process("fork"),
    "a spawned process": lambda: _process("spawn"),
    "a pool": _pool,
    "an AsyncVectorEnv": _vector,
    "a thread": _thread,
}


class Family(BreakingEnv):
    """Starts children of some kinds when it is made, and forgets to end them."""

    def __init__(self, kinds: list[str], notes: Path, how: str = "", seed: int = -1) -> None:
        super().__init__(how, seed, notes / "broken" if how in ("exits", "hangs") else None)
        for kind in kinds:
            for pid in CHILDREN[kind]():
                (notes / f"{pid}.{kind}").touch()


def running(notes: Path) -> list[str]:
    """Numbers and kinds of the children that are there still."""
    return [path.name for path in notes.glob("[0-9]*.*") if is_running(int(path.stem))]
