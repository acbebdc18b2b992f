"""Atari games (ALE): frames without flicker, actions by name, and a policy that keeps a game going."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from vqvideo.errors import InputError


class LastTwo(gymnasium.Wrapper):
    """Shows the brighter of the last two frames, pixel by pixel: the console draws some sprites in every other one.

    Only where every frame is seen: with a frame skip of the emulator's own the two are too far apart, and are left
    alone.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        picture = len(env.observation_space.shape or ()) > 1
        self.blends = picture and getattr(env.unwrapped, "_frameskip", None) == 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        self.last, info = self.env.reset(seed=seed, options=options)
        return self.last, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        frame, reward, terminated, truncated, info = self.env.step(action)
        shown = np.maximum(self.last, frame) if self.blends else frame
        self.last = frame
        return shown, reward, terminated, truncated, info


def named_actions(env: gymnasium.Env) -> dict[str, tuple[float, ...]]:
    """The buttons of a game: noop, fire, up, right, ..., upright, ..., uprightfire; none of continuous actions."""
    if not isinstance(env.action_space, gymnasium.spaces.Discrete):
        return {}
    inner: Any = env.unwrapped
    return {name.lower(): (float(i),) for i, name in enumerate(inner.get_action_meanings())}


class Arcade:
    """Holds random buttons for a geometric time, and keeps the game going: presses fire where a game begins or a life
    was lost, which is what many games wait for, and walks on where a game knows no sideways.

    Args:
        mean_steps: steps for which a button is held, on average.
    """

    SERVE = 2
    """Steps for which fire is held."""

    def __init__(self, mean_steps: float = 5.0) -> None:
        self.mean_steps = mean_steps

    def reset(self, env: gymnasium.Env, rng: np.random.Generator) -> None:
        inner: Any = env.unwrapped
        if not hasattr(inner, "ale") or not (names := named_actions(env)):
            raise InputError(
                "the policy arcade plays Atari games with discrete actions: take --policy sticky-random or random here"
            )
        self.ale, self.rng = inner.ale, rng
        self.fire = int(names["fire"][0]) if "fire" in names else None
        odds = np.ones(len(names))
        if not any("left" in name or "right" in name for name in names) and "up" in names:
            # In Freeway steps forth and back cancel out, and the road is never crossed.
            odds[int(names["up"][0])] = 8.0
        self.odds = odds / odds.sum()
        self.lives, self.left, self.serving = self.ale.lives(), 0, self.SERVE

    def __call__(self, frame: NDArray[np.uint8]) -> Any:
        lives = self.ale.lives()
        if lives < self.lives:
            self.serving = self.SERVE
        self.lives = lives
        if self.fire is not None and self.serving:
            self.serving -= 1
            return np.int64(self.fire)
        if self.left == 0:
            self.action = self.rng.choice(len(self.odds), p=self.odds)
            self.left = int(self.rng.geometric(1 / self.mean_steps))
        self.left -= 1
        return self.action
