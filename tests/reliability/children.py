"""Processes that are killed: each begins in a tenth of a second, forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

DEADLINE = 120.0
"""Seconds after which a child that has not ended hangs."""


class Child:
    """A process that has begun to call `action` with a folder; what it prints goes to a file beside that folder."""

    def __init__(self, action: Callable[[Path], object], folder: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        tests = str(Path(__file__).parents[1])
        # The server that all are forked from looks for modules where this process finds them; one thread, as in tests.
        os.environ["PYTHONPATH"] = os.pathsep.join([tests, *(p for p in sys.path if p and p != tests)])
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        context.set_forkserver_preload(["reliability.kills", "accelerate", "torch.utils.tensorboard", "torch._dynamo"])
        self.log = folder.with_name(f"{folder.name}.log")
        self._process = context.Process(target=_act, args=(action, folder, self.log))
        self._process.start()
        self._began = time.monotonic()

    def killed_after(self, seconds: float) -> bool:
        """Sends SIGKILL so many seconds after the beginning; False if it was over before."""
        self._process.join(timeout=max(0.0, self._began + seconds - time.monotonic()))
        self._process.kill()
        return self.exit_code(30) < 0

    def exit_code(self, seconds: float = DEADLINE) -> int:
        """Waits for the end. TimeoutError, after a kill, if it does not come."""
        self._process.join(timeout=seconds)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(f"no end after {seconds:g} s: {self.last_words()}")
        return self._process.exitcode

    def last_words(self) -> str:
        """The end of what it printed, in a line."""
        return " | ".join(self.log.read_text(errors="replace").split("\n"))[-400:] if self.log.exists() else ""


def _act(action: Callable[[Path], object], folder: Path, log: Path) -> None:
    with open(log, "a", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        action(folder)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    # Without the farewells of the interpreter: nothing may depend on them.
    os._exit(0)
