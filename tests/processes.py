"""Commands under a watchdog, for tests that start processes which may wait for each other for ever."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

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
        out, err = process.communicate()
        raise AssertionError(f"{command} did not end within {seconds} s\n{out}\n{err}") from None
    return Ended(process.returncode, out, err)


def script(name: str, *arguments: object, cwd: Path) -> Ended:
    """Runs one of the scripts."""
    return run(sys.executable, SCRIPTS / f"{name}.py", *arguments, cwd=cwd)


def launch(*arguments: object, cwd: Path, **environment: str) -> Ended:
    """`accelerate launch`, on a port that nobody else uses."""
    return run(BIN / "accelerate", "launch", "--main_process_port", free_port(), *arguments, cwd=cwd, **environment)


def free_port() -> int:
    """A port that nobody uses just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
