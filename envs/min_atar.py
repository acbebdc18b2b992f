"""MinAtar: its planes of truth values as coloured cells, and its actions by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from vqvideo.errors import InputError

CELL = 8
"""Side of a cell in pixels: one token of the tokenizers of configs/."""
COLOURS = np.array(
    [
        (235, 235, 235),
        (240, 60, 50),
        (70, 130, 250),
        (250, 210, 40),
        (60, 200, 90),
        (190, 80, 230),
        (250, 140, 30),
        (40, 210, 220),
        (150, 100, 60),
        (250, 130, 190),
    ],
    np.uint8,
)
"""One of each plane, far apart; the ground is black."""
GROUND = np.zeros(3, np.uint8)
REPEATED = ("alien",)
"""Planes whose cells are marked once more, in a plane that says more of them: they are drawn first, below all."""


class Cells(gymnasium.ObservationWrapper):
    """Observes the board as a picture, (8 h, 8 w, 3) uint8, whose cells have the colour of the first plane that marks
    them. The first plane is the player's.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        h, w, planes = env.observation_space.shape or ()
        inner: Any = env.unwrapped
        names: dict[str, int] = inner.game.env.channels
        self.order = sorted(range(planes), key=lambda plane: -plane)
        self.order.sort(key=lambda plane: plane not in [names.get(name) for name in REPEATED])
        self.observation_space = spaces.Box(0, 255, (h * CELL, w * CELL, 3), np.uint8)

    def observation(self, observation: NDArray[np.bool_]) -> NDArray[np.uint8]:
        board = np.tile(GROUND, (*observation.shape[:2], 1))
        for plane in self.order:
            board[observation[:, :, plane]] = COLOURS[plane]
        return board.repeat(CELL, axis=0).repeat(CELL, axis=1)


def named_actions(env: gymnasium.Env) -> dict[str, tuple[float, ...]]:
    """noop, left, up, right, down, fire: those that the game takes."""
    inner: Any = env.unwrapped
    names = ("noop", "left", "up", "right", "down", "fire")
    return {names[action]: (float(i),) for i, action in enumerate(inner.action_set)}


class Play:
    """Holds random actions for a geometric time, but mostly follows the ball of Breakout, whose episodes would end
    after six steps, and mostly goes up in Freeway, whose road would never be crossed. Some episodes know better than
    others: who only sees near misses believes that a ball bounces wherever the paddle is.

    Args:
        mean_steps: steps for which a random action is held, on average.
        follow: how often it does what the game asks for, one of these in each episode.
    """

    def __init__(self, mean_steps: float = 3.0, follow: Sequence[float] = (0.0, 0.5, 0.9, 0.9)) -> None:
        self.mean_steps, self.follow = mean_steps, tuple(follow)

    def reset(self, env: gymnasium.Env, rng: np.random.Generator) -> None:
        inner: Any = env.unwrapped
        if not hasattr(inner, "game") or not hasattr(inner, "action_set"):
            raise InputError("the policy minatar plays MinAtar: take --policy sticky-random or random here")
        self.game, self.kind, self.rng = inner.game.env, inner.game.game_name(), rng
        self.actions = {name: int(action) for name, (action,) in named_actions(env).items()}
        self.left, self.follows = 0, rng.choice(self.follow)

    def __call__(self, frame: NDArray[np.uint8]) -> Any:
        asked = self._asked()
        if asked is not None and self.rng.random() < self.follows:
            return np.int64(asked)
        if self.left == 0:
            self.action = self.rng.integers(len(self.actions))
            self.left = int(self.rng.geometric(1 / self.mean_steps))
        self.left -= 1
        return self.action

    def _asked(self) -> int | None:
        """What the game asks for, where random play gets nowhere."""
        if self.kind == "freeway":
            return self.actions["up"]
        if self.kind != "breakout":
            return None
        way = int(np.sign(self._landing() - self.game.pos))
        return self.actions[("left", "noop", "right")[way + 1]]

    def _landing(self) -> int:
        """The column of Breakout's ball when it is down at the paddle; of a rising ball its own."""
        _, _, down_right, down_left = range(4)
        x, rows = self.game.ball_x, 9 - self.game.ball_y
        if self.game.ball_dir not in (down_right, down_left):
            return x
        x = (x + (rows if self.game.ball_dir == down_right else -rows)) % 20
        # It stays in the outermost column for a step as it turns.
        return min(x, 19 - x)
