"""A tiny numpy world whose dynamics are known exactly, for tests and tutorials.

A block moves on an 8x8 grid. Reaching the goal gives reward 1 and moves the goal to the opposite
point of the grid; touching the hazard gives reward -1 and ends the episode. `next_state` and `draw`
are pure, so a test can predict every frame.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from vqvideo.errors import InputError

CELLS = 8
# stay, up, down, left, right, as (row, column)
MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
BLOCK_COLOR, GOAL_COLOR, HAZARD_COLOR = (230, 60, 50), (70, 220, 90), (60, 80, 230)
TEXTURES = 8


class State(NamedTuple):
    """Everything that `draw` and `next_state` look at; places are (row, column) of the grid."""

    block: tuple[int, int]
    goal: tuple[int, int]
    hazard: tuple[int, int]
    texture: int


class Outcome(NamedTuple):
    """What one action leads to."""

    state: State
    reward: float
    terminated: bool


def next_state(state: State, action: int) -> Outcome:
    """Moves the block by `action` (0..4: stay, up, down, left, right); walls hold it."""
    row, column = (min(max(x + dx, 0), CELLS - 1) for x, dx in zip(state.block, MOVES[int(action)], strict=True))
    state = state._replace(block=(row, column))
    if state.block == state.hazard:
        return Outcome(state, -1.0, True)
    if state.block == state.goal:
        return Outcome(state._replace(goal=opposite(state.goal)), 1.0, False)
    return Outcome(state, 0.0, False)


def opposite(place: tuple[int, int]) -> tuple[int, int]:
    """The place mirrored through the middle of the grid."""
    return CELLS - 1 - place[0], CELLS - 1 - place[1]


def shortest_path_action(state: State) -> int:
    """The first action of a shortest way to the goal that leaves the hazard out."""
    away, waiting = {state.goal: 0}, [state.goal]
    for place in waiting:
        for action in range(1, len(MOVES)):
            before = next_state(State(place, state.goal, state.hazard, state.texture), action).state.block
            if before != state.hazard and before not in away:
                away[before] = away[place] + 1
                waiting.append(before)
    after = [next_state(state, action).state.block for action in range(len(MOVES))]
    return min(range(len(MOVES)), key=lambda action: away.get(after[action], CELLS**2))


def draw(state: State, size: int = 32) -> NDArray[np.uint8]:
    """The frame of a state, (size, size, 3) uint8. `size` is a multiple of 8."""
    cell = size // CELLS
    rows, columns = np.indices((size, size)) * 32 // size
    stripes = (rows * 5 + columns * 3 + state.texture * 4) % 32
    frame = np.stack([stripes + 40, rows + 50, stripes * 2 + 30], axis=-1).astype(np.uint8)
    places = ((state.hazard, HAZARD_COLOR), (state.goal, GOAL_COLOR), (state.block, BLOCK_COLOR))
    for (row, column), color in places:
        frame[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = color
    return frame


def first_state(rng: np.random.Generator) -> State:
    """A state in which block, goal and hazard stand apart, and the goal never lands on the hazard."""
    places = [(int(i) // CELLS, int(i) % CELLS) for i in rng.permutation(CELLS * CELLS)]
    block, goal = places[0], places[1]
    hazard = next(place for place in places[2:] if place != opposite(goal))
    return State(block, goal, hazard, int(rng.integers(TEXTURES)))


class ShortestPath:
    """Goes from goal to goal. As each one lies opposite to the last, nobody can do better."""

    def reset(self, env: gymnasium.Env, rng: np.random.Generator) -> None:
        if not isinstance(env.unwrapped, TinyWorld):
            raise InputError("the policy shortest-path plays TinyWorld: take --policy sticky-random or random here")
        self.world = env.unwrapped

    def __call__(self, frame: NDArray[np.uint8]) -> Any:
        return np.int64(shortest_path_action(self.world.state))


class TinyWorld(gymnasium.Env):
    """The world as a Gymnasium environment: observes (size, size, 3) uint8, acts with Discrete(5).

    Args:
        size: side of the frame in pixels, a multiple of 8.
        render_mode: None or "rgb_array".
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, size: int = 32, render_mode: str | None = None) -> None:
        if size < CELLS or size % CELLS:
            raise InputError(f"TinyWorld's size is {size}; it must be a multiple of {CELLS}.")
        self.size = size
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = spaces.Discrete(len(MOVES))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self.state = first_state(self.np_random)
        return draw(self.state, self.size), {"state": self.state}

    def step(self, action: int) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        self.state, reward, terminated = next_state(self.state, action)
        return draw(self.state, self.size), reward, terminated, False, {"state": self.state}

    def render(self) -> NDArray[np.uint8] | None:
        return draw(self.state, self.size) if self.render_mode == "rgb_array" else None
