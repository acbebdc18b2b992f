"""Faults of a real environment: the same episode again, in which from some step on the world does not work as it did.

A fault that any environment can have is in `FAULTS`; those of one environment are named by its preset.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from vqvideo.data.episode import Episode
from vqvideo.spaces import ActionSpace

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Fault(ABC):
    """What goes wrong, and how much."""

    severity: float

    severities: ClassVar[tuple[float, ...]]
    """From mild to severe."""
    title: ClassVar[str]
    family: ClassVar[str] = "dynamics"

    def begin(self, env: gymnasium.Env) -> None:  # noqa: B027  most have nothing to break
        """Breaks what stays broken; nothing by default."""

    @abstractmethod
    def step(self, env: gymnasium.Env, action: Any, last: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        """What `action` leads to, `last` being what was carried out before: the frame, and what was carried out."""


class StickyActions(Fault):
    """With this probability the last action is carried out again in place of a new one (Machado et al. 2018,
    arXiv:1709.06009, section 5.2).
    """

    severities = (0.5, 0.9)
    title = "sticky actions"

    def step(self, env: gymnasium.Env, action: Any, last: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        done = last if rng.random() < self.severity else action
        return env.step(done)[0], done


class FasterWorld(Fault):
    """So many steps happen where one did."""

    severities = (2,)
    title = "faster world"

    def step(self, env: gymnasium.Env, action: Any, last: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        frames = [env.step(action)[0] for _ in range(int(self.severity))]
        return frames[-1], action


FAULTS: tuple[type[Fault], ...] = (StickyActions, FasterWorld)
"""Of any environment."""


def replayed(
    env: gymnasium.Env, episode: Episode, onset: int, count: int, faults: list[Fault]
) -> Iterator[Frames | None]:
    """The frames (count, h, w, 3) that follow frame `onset` of a recorded episode under its own actions, with each of
    some faults; None where the episode cannot be played again as it was.

    Args:
        env: as it was recorded: see `vqvideo.envs.as_recorded`.
        episode: recorded from a reset on.
        onset: the last normal frame.
        count: how many frames.
        faults: played one after the other, from the same beginning.
    """
    space = ActionSpace.from_gymnasium(env.action_space)
    actions = [space.unflatten(action) for action in episode.actions[: onset + count]]
    for fault in faults:
        frame, _ = env.reset(seed=episode.seed)
        for action in actions[:onset]:
            frame = env.step(action)[0]
        if not np.array_equal(frame, episode.frames[onset]):
            yield None
            continue
        fault.begin(env)
        frames, done, rng = [], actions[onset - 1], np.random.default_rng(episode.seed)
        for action in actions[onset:]:
            frame, done = fault.step(env, action, done, rng)
            frames.append(frame)
        yield np.stack(frames)
