"""Wrappers of any environment: action repeat, skipped first steps, frames at the stored size."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from vqvideo.data.playing import resize
from vqvideo.errors import InputError


class SkipFirst(gymnasium.Wrapper):
    """Takes `steps` env steps with an idle action at each reset (an intro, a zoom, a loading screen)."""

    def __init__(self, env: gymnasium.Env, steps: int) -> None:
        super().__init__(env)
        self.steps = steps

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        observation, info = self.env.reset(seed=seed, options=options)
        action = idle_action(self.env.action_space)
        for step in range(self.steps):
            observation, _, terminated, truncated, info = self.env.step(action)
            if terminated or truncated:
                raise InputError(
                    f"the episode (seed {seed}) ended at step {step + 1} of the {self.steps} that are "
                    "skipped at its start. Skip fewer: --skip-first."
                )
        return observation, info


class ActionRepeat(gymnasium.Wrapper):
    """Holds each action for `repeat` env steps, adds up their rewards and stops at the episode's end."""

    def __init__(self, env: gymnasium.Env, repeat: int) -> None:
        super().__init__(env)
        self.repeat = repeat

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        total = 0.0
        for _ in range(self.repeat):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


class ResizedFrames(gymnasium.ObservationWrapper):
    """Frames (h, w, 3) uint8 at the size at which a recording stores them, by the same antialiased resize."""

    def __init__(self, env: gymnasium.Env, size: tuple[int, int]) -> None:
        super().__init__(env)
        self.size = size
        self.observation_space = spaces.Box(0, 255, (*size, 3), np.uint8)

    def observation(self, observation: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return resize(observation, self.size)


def idle_action(space: spaces.Space) -> Any:
    """The action that does least: zero where it is allowed, else the allowed value next to zero."""
    if isinstance(space, spaces.Box):
        return np.clip(np.zeros(space.shape), space.low, space.high).astype(space.dtype)
    if isinstance(space, spaces.Discrete):
        return space.start
    if isinstance(space, spaces.MultiDiscrete):
        return space.start.copy()
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(space.shape, space.dtype)
    if isinstance(space, spaces.Dict):
        return {key: idle_action(child) for key, child in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(idle_action(child) for child in space)
    raise InputError(f"no idle action is known for {space}. Record with --skip-first 0.")
