"""Trainings of the tiny experiment in processes that can be killed: each begins in a tenth of a second, since all are
forked from one process that has imported everything.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from processes import free_port
from tiny_models import tiny_experiment

from vqvideo import cli
from vqvideo.data.store import Store
from vqvideo.experiment.config import Experiment
from vqvideo.experiment.prior import train_prior
from vqvideo.experiment.tokenizer import train_vqvae

TRAININGS: dict[str, Callable[..., dict[str, float]]] = {"vqvae": train_vqvae, "prior": train_prior}
DEADLINE = 120.0
"""Seconds after which a training that has not ended hangs."""

Poison = Callable[[int, Path], None]
"""Called with the rank and the folder of the plan before the training begins: breaks or slows down something."""


@dataclass(frozen=True)
class Plan:
    """What a life trains."""

    folder: Path
    """Holds data/ and runs/tiny/."""
    stage: str
    """"vqvae" or "prior"."""
    train: tuple[tuple[str, Any], ...] = ()
    """Settings of the training that differ from those of `tiny_models.train_config`."""
    resume: bool = True
    any_world_size: bool = False
    poison: Poison | None = None

    @property
    def cfg(self) -> Experiment:
        """The experiment."""
        return tiny_experiment(self.folder, **dict(self.train))

    @property
    def run(self) -> Path:
        """Folder of the stage."""
        return self.cfg.folder / self.stage

    @property
    def log(self) -> Path:
        """What the training printed."""
        return self.folder / f"{self.stage}.log"


class Life:
    """A training under way, on one rank or several."""

    def __init__(self, plan: Plan, world: int = 1) -> None:
        self.plan = plan
        port = free_port() if world > 1 else 0
        self.ranks = [_process(_live, (plan, rank, world, port)) for rank in range(world)]
        self.began = time.monotonic()
        for rank in self.ranks:
            rank.start()

    @property
    def alive(self) -> bool:
        """Whether any rank lives."""
        return any(rank.is_alive() for rank in self.ranks)

    def send(self, number: int, rank: int | None = None) -> None:
        """A signal to one rank, or to all."""
        for process in self.ranks if rank is None else [self.ranks[rank]]:
            with contextlib.suppress(ProcessLookupError, TypeError):
                os.kill(process.pid, number)  # type: ignore[arg-type]

    def wait(self, seconds: float = DEADLINE) -> list[int]:
        """Exit codes of all ranks.

        Raises:
            TimeoutError: one still lives after `seconds`; all were killed.
        """
        end = time.monotonic() + seconds
        for rank in self.ranks:
            rank.join(max(0.0, end - time.monotonic()))
        if self.alive:
            self.kill()
            raise TimeoutError(f"no end after {seconds:g} s: {_tail(self.plan.log)}")
        return [int(rank.exitcode or 0) for rank in self.ranks]

    def kill(self) -> list[int]:
        """SIGKILL to all ranks. Exit codes."""
        self.send(signal.SIGKILL)
        return self.wait(30)

    def wait_until(self, happened: Callable[[], object], seconds: float = DEADLINE) -> bool:
        """Waits, without a pause, until something happened; False if the life was over before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if happened():
                return True
            if not self.alive:
                return False
        raise TimeoutError(f"nothing of the kind within {seconds:g} s: {_tail(self.plan.log)}")

    def last_words(self, letters: int = 400) -> str:
        """The end of what it printed."""
        return _tail(self.plan.log, letters)


def running(target: Callable[..., None], *arguments: object) -> ForkServerProcess:
    """A process that has begun to call a function of a module."""
    process = _process(target, arguments)
    process.start()
    return process


def warm_up() -> None:
    """Starts the server that all are forked from, whose imports must not count as the time of the first life."""
    running(os.getpid).join()  # type: ignore[arg-type]


def _process(target: Callable[..., None], arguments: tuple[object, ...]) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    tests = str(Path(__file__).parents[1])
    # The server that all are forked from looks for modules where this process finds them, and computes on one thread.
    os.environ["PYTHONPATH"] = os.pathsep.join([tests, *(p for p in sys.path if p and p != tests)])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context.set_forkserver_preload(["reliability.lives", "accelerate", "torch.utils.tensorboard", "torch._dynamo"])
    return context.Process(target=target, args=arguments)


def _live(plan: Plan, rank: int, world: int, port: int) -> None:
    os.setpgid(0, 0)
    with open(plan.log, "a", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if world > 1:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
        }  # fmt: skip
    if plan.poison is not None:
        plan.poison(rank, plan.folder)

    def train() -> None:
        store = Store.open(plan.folder / "data")
        TRAININGS[plan.stage](plan.cfg, store, resume=plan.resume, any_world_size=plan.any_world_size)

    code = 0
    try:
        cli.run(train)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    # Without the farewells of the interpreter: nothing may depend on them.
    os._exit(code)


def _tail(log: Path, letters: int = 400) -> str:
    text = log.read_text(errors="replace") if log.exists() else ""
    return " | ".join(text.split("\n"))[-letters:]
