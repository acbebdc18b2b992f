"""A real environment in a process of its own: what it does to itself, or that it hangs, troubles nobody else."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple

import cloudpickle
import gymnasium
import numpy as np
from numpy.typing import NDArray

from vqvideo.data.main_guard import importable_main
from vqvideo.data.worker import lead_session
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

_DONE, _ERROR = "done", "error"
_GOODBYE = 1.0
"""Seconds that an environment has to close itself."""


class RealStep(NamedTuple):
    """What real steps led to, as many as the episode still had."""

    frames: NDArray[np.uint8]
    """(n, h, w, 3): one after each step."""
    rewards: tuple[float, ...]
    """(n,)"""
    terminated: bool
    truncated: bool


class Reality:
    """Plays a real environment. It is made in a new process by the first reset, and by the next one if it broke down.

    A step takes two calls, `begin_step` and `finish`, so that the caller can do something else in between.

    Args:
        make: makes the environment, whose observations are frames (h, w, 3) uint8; picklable.
        space: of its actions.
        patience: seconds after which an answer is no longer waited for.
    """

    def __init__(self, make: Callable[[], gymnasium.Env], space: ActionSpace, patience: float = 60.0) -> None:
        self.patience = patience
        self._work = cloudpickle.dumps((make, space))
        self._process: SpawnProcess | None = None
        self._pipe: connection.Connection | None = None

    def reset(self, seed: int) -> NDArray[np.uint8]:
        """Begins an episode; its first frame (h, w, 3).

        Raises:
            InputError: the environment cannot be made or played here; says why.
        """
        if self._process is None:
            self._open()
        self._ask("reset", seed)
        return self.finish()

    def begin_step(self, actions: NDArray[np.float64]) -> None:
        """Takes steps under flat actions (n, a), up to the end of the episode; `finish` gives the `RealStep`."""
        self._ask("step", actions)

    def finish(self) -> Any:
        """Waits for what was begun; InputError as of `reset`."""
        if self._pipe is None or self._process is None:
            raise InputError("the real environment is closed: reset it first")
        try:
            answered = self._pipe.poll(self.patience)
            what, value = self._pipe.recv() if answered else (_ERROR, f"no answer in {self.patience:g} s")
        except (EOFError, OSError):
            self._process.join(5)
            what, value = _ERROR, f"its process ended with code {self._process.exitcode}"
        if what == _ERROR:
            self.close()
            raise InputError(f"the real environment does not run: {value}")
        return value

    def close(self) -> None:
        """Ends the process and those of the environment, whatever it does."""
        process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        if process is None or pipe is None:
            return
        with contextlib.suppress(OSError):
            pipe.send(None)
        process.join(_GOODBYE)
        if process.is_alive() and process.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
        process.join()
        pipe.close()

    def _open(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_live, args=(theirs, self._work), name="reality", daemon=True)
        with importable_main():
            self._process.start()
        theirs.close()

    def _ask(self, what: str, value: Any) -> None:
        # That the process is gone is found when its answer is read.
        with contextlib.suppress(OSError):
            if self._pipe is not None:
                self._pipe.send((what, value))


def _live(pipe: connection.Connection, work: bytes) -> None:
    """The life of the process: makes the environment, then does what it is asked for until nobody asks any more."""
    lead_session("reality")
    os.register_at_fork(after_in_child=pipe.close)
    try:
        make, space = cloudpickle.loads(work)
        env = make()
        while (asked := pipe.recv()) is not None:
            what, value = asked
            pipe.send((_DONE, env.reset(seed=value)[0] if what == "reset" else _stepped(env, space, value)))
        env.close()
    except EOFError:
        pass
    except Exception as error:
        text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        pipe.send((_ERROR, text[:500]))


def _stepped(env: gymnasium.Env, space: ActionSpace, actions: NDArray[np.float64]) -> RealStep:
    frames, rewards = [], []
    for action in actions:
        frame, reward, terminated, truncated, _ = env.step(space.unflatten(action))
        frames.append(frame.copy())
        rewards.append(float(reward))
        if terminated or truncated:
            break
    return RealStep(np.stack(frames), tuple(rewards), bool(terminated), bool(truncated))
