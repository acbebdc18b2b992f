"""MiniGrid and BabyAI: actions by name, and a policy that gets about."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from vqvideo.errors import InputError


def named_actions(env: gymnasium.Env) -> dict[str, tuple[float, ...]]:
    """left, right, forward, pickup, drop, toggle, done: those that the environment takes."""
    inner: Any = env.unwrapped
    space: Any = env.action_space
    return {action.name: (float(action),) for action in inner.actions if space.contains(int(action))}


class Wander:
    """Walks more than it turns, and tries what else there is now and then: uniform actions turn on the spot."""

    ODDS = {"forward": 8.0, "left": 2.0, "right": 2.0, "pickup": 1.0, "toggle": 1.0, "drop": 0.5, "done": 0.25}  # noqa: RUF012

    def reset(self, env: gymnasium.Env, rng: np.random.Generator) -> None:
        if not hasattr(env.unwrapped, "actions"):
            raise InputError("the policy wander walks through MiniGrid: take --policy sticky-random or random here")
        names = named_actions(env)
        self.actions = np.array([int(action) for (action,) in names.values()])
        odds = np.array([self.ODDS.get(name, 1.0) for name in names])
        self.odds, self.rng = odds / odds.sum(), rng

    def __call__(self, frame: NDArray[np.uint8]) -> Any:
        return self.rng.choice(self.actions, p=self.odds)
