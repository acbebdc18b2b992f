"""Processes under a watchdog, for tests that start some which may wait for each other for ever."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"
BIN = Path(sys.executable).parent


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def run(*command: object, cwd: Path, seconds: float = 120, **environment: str) -> Ended:
    """Runs a command on one thread; past its deadline the whole process group is killed and the test fails."""
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate(timeout=30)
        raise AssertionError(f"{command} did not end within {seconds} s\n{out}\n{err}") from None
    return Ended(process.returncode, out, err)


def script(name: str, *arguments: object, cwd: Path) -> Ended:
    """Runs one of the scripts."""
    return run(sys.executable, SCRIPTS / f"{name}.py", *arguments, cwd=cwd)


def launch(*arguments: object, cwd: Path, seconds: float = 120, **environment: str) -> Ended:
    """`accelerate launch`, on a port that nobody else uses."""
    command = (BIN / "accelerate", "launch", "--main_process_port", free_port(), *arguments)
    return run(*command, cwd=cwd, seconds=seconds, **environment)


def in_fork(action: Callable[[], object], seconds: float = 60) -> int:
    """Does something in a forked child. Its exit code: 0, or 1 after an error; past its deadline it is killed."""
    child = os.fork()
    if not child:
        try:
            action()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    end = time.monotonic() + seconds
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(ended[1])


def on_two_ranks(function: Callable[..., None], *arguments: object, seconds: float = 120) -> None:
    """Calls a function with the rank and `arguments` in two processes; past their deadline both are killed."""
    ranks = torch.multiprocessing.spawn(function, arguments, nprocs=2, join=False)
    end = time.monotonic() + seconds
    while not ranks.join(timeout=1):
        if time.monotonic() > end:
            for process in ranks.processes:
                process.kill()
            raise AssertionError(f"{function.__name__} did not end within {seconds} s on two ranks")


def free_port() -> int:
    """A port that nobody uses just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
