"""Playing one episode: a policy in an environment, frames at the stored size, everything checked on the way."""

from __future__ import annotations

import math
import reprlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vqvideo.data.episode import CHUNK, Steps
from vqvideo.data.episode_writer import EpisodeWriter, WrittenEpisode
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

if TYPE_CHECKING:
    import gymnasium

WRITING = -1
"""In the place of a number of steps: the episode is over, and its file is put together."""
_LARGEST_REWARD = float(np.finfo(np.float32).max)


class Policy(Protocol):
    """Chooses actions; all its randomness comes from the generator that `reset` hands over."""

    def reset(self, env: gymnasium.Env, rng: np.random.Generator) -> None:
        """Begins an episode of `env`, which has just been reset."""
        ...

    def __call__(self, frame: NDArray[np.uint8]) -> Any:
        """The action for `frame`, (h, w, 3) uint8, as `env.step` takes it."""
        ...


class EpisodeSeeds(NamedTuple):
    """All the randomness of one episode."""

    env: int
    action_space: int
    policy: np.random.SeedSequence


def episode_seeds(seed: int, index: int) -> EpisodeSeeds:
    """The seeds of episode `index` of a run with seed `seed`."""
    env, action_space, policy = np.random.SeedSequence([seed, index]).spawn(3)
    return EpisodeSeeds(_number(env), _number(action_space), policy)


def _number(sequence: np.random.SeedSequence) -> int:
    # Some environments refuse seeds of 32 bits and more.
    return int(sequence.generate_state(1)[0] >> 1)


@dataclass(frozen=True)
class Job:
    """What a worker must know to play any episode of the run."""

    make_env: Callable[[], gymnasium.Env]
    make_policy: Callable[[], Policy]
    max_steps: int
    frame_size: tuple[int, int]
    seed: int
    folder: Path
    """Of the store's episodes; absolute, since an environment may change the working directory."""


class FrameBuffer:
    """Writes the frames of an episode at the stored size, as many at once as are compressed together."""

    def __init__(self, size: tuple[int, int], writer: EpisodeWriter, where: str) -> None:
        self.size, self.writer, self.where = size, writer, where
        self._shape: tuple[int, ...] | None = None
        self._fresh: list[NDArray[np.uint8]] = []

    def add(self, frame: Any, step: int) -> None:
        """Takes the frame after `step` steps. InputError if it is not one, or not of the size of those before."""
        where = f"{self.where}, step {step}"
        is_array = isinstance(frame, np.ndarray)
        if not is_array or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            got = f"{frame.dtype} {frame.shape}" if is_array else type(frame).__name__
            raise InputError(f"{where}: the frame is {got}; expected (h, w, 3) uint8.")
        self._shape = self._shape or frame.shape
        if frame.shape != self._shape:
            raise InputError(
                f"{where}: the frame's shape changed from {self._shape} to {frame.shape}; expected one size."
            )
        # Some environments draw every frame into the same array: never keep their own.
        self._fresh.append(resize(frame.copy(), self.size))
        if len(self._fresh) == CHUNK:
            self.flush()

    def flush(self) -> None:
        """Writes those that still wait for others."""
        if self._fresh:
            self.writer.add_frames(np.stack(self._fresh))
            self._fresh = []


class StepBuffer:
    """Gathers actions and rewards in as many bytes as they have in the file: steps are many more than their frames."""

    def __init__(self, space: ActionSpace) -> None:
        self.space = space
        self._actions, self._rewards = array("d"), array("f")

    def add(self, action: NDArray[np.float64], reward: float) -> None:
        """Takes a step with its flat action."""
        self._actions.frombytes(action.tobytes())
        self._rewards.append(reward)

    def finish(self, terminated: bool, truncated: bool) -> Steps:
        """All steps, of which the last one ended the episode so."""
        rewards = np.array(self._rewards, np.float32)
        last = np.arange(len(rewards)) == len(rewards) - 1
        actions = np.array(self._actions, np.float64).reshape(len(rewards), self.space.size)
        return Steps(actions, rewards, last & terminated, last & truncated)


def resize(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A frame (h, w, 3) uint8 at `size` (height, width), antialiased.

    By Pillow, in whole numbers: equal on every machine, where PyTorch's depend on the instructions that a processor
    has, and without PyTorch, of which every worker would need its own 0.7 GiB.
    """
    h, w = size
    if frame.shape[:2] == (h, w):
        return frame
    return np.array(Image.fromarray(frame).resize((w, h), Image.Resampling.BILINEAR))


def play(
    job: Job, index: int, env: gymnasium.Env, policy: Policy, on_step: Callable[[int], object] = lambda _: None
) -> WrittenEpisode:
    """Plays episode `index` and writes its file. `on_step(step)` is called before each step, with the steps that are
    done, and with `WRITING` when the environment has done its part.
    """
    seeds = episode_seeds(job.seed, index)
    where = f"episode {index} (seed {seeds.env})"
    space = ActionSpace.from_gymnasium(env.action_space)
    with EpisodeWriter(job.folder) as writer:
        frames, steps = FrameBuffer(job.frame_size, writer, where), StepBuffer(space)
        env.action_space.seed(seeds.action_space)
        frame, _ = env.reset(seed=seeds.env)
        frames.add(frame, 0)
        policy.reset(env, np.random.default_rng(seeds.policy))
        for step in range(job.max_steps):
            on_step(step)
            action = policy(frame)
            flat = _flatten(space, action, f"{where}, step {step}")
            frame, reward, terminated, truncated, _ = env.step(action)
            frames.add(frame, step + 1)
            steps.add(flat, _finite(reward, f"{where}, step {step}"))
            if terminated or truncated:
                break
        on_step(WRITING)
        frames.flush()
        return writer.finish(steps.finish(bool(terminated), bool(truncated) or not terminated), seeds.env)


def _flatten(space: ActionSpace, action: Any, where: str) -> NDArray[np.float64]:
    try:
        return space.flatten(action)
    except InputError as error:
        raise InputError(f"{where}: the policy's action {reprlib.repr(action)} is not in {space}: {error}") from error


def _finite(reward: Any, where: str) -> float:
    try:
        value = float(reward)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    # As it is stored: a larger number would be infinite there.
    if not abs(value) <= _LARGEST_REWARD:
        raise InputError(f"{where}: the environment's reward is {reward!r:.80}; expected a finite number.")
    return value
