"""Doom (ViZDoom): without the files that the game leaves in the current folder, with actions by name, and a policy that
gets about.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

ENV_ID = "VizdoomMyWayHome-v1"


class InScratchFolder(gymnasium.Wrapper):
    """Starts and ends episodes inside a temporary folder: a game engine starts with its first episode, and writes
    settings and caches into the current folder.
    """

    def __init__(self, env: gymnasium.Env, folder: tempfile.TemporaryDirectory[str]) -> None:
        super().__init__(env)
        self._folder = folder

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        with contextlib.chdir(self._folder.name):
            return self.env.reset(seed=seed, options=options)

    def close(self) -> None:
        with contextlib.chdir(self._folder.name):
            self.env.close()
        self._folder.cleanup()


def my_way_home(**kwargs: Any) -> gymnasium.Env:
    """The environment; observes {"screen": (240, 320, 3) uint8, ...} and has six actions.

    Raises:
        ImportError: vizdoom is not installed.
    """
    import vizdoom.gymnasium_wrapper  # noqa: F401  registers the environments

    folder = tempfile.TemporaryDirectory(prefix="vqvideo-doom-")
    env = gymnasium.make(ENV_ID, doom_config_path=str(Path(folder.name) / "doom.ini"), **kwargs)
    return InScratchFolder(env, folder)


def in_scratch_folder(env: gymnasium.Env) -> gymnasium.Env:
    """Any environment of ViZDoom, whose game was not started yet, with its files in a temporary folder."""
    inner: Any = env.unwrapped
    folder = tempfile.TemporaryDirectory(prefix="vqvideo-doom-")
    inner.game.set_doom_config_path(str(Path(folder.name) / "doom.ini"))
    return InScratchFolder(env, folder)


def named_actions(env: gymnasium.Env) -> dict[str, tuple[float, ...]]:
    """idle, and each button alone: attack, move_left, turn_right, ...; none where some act like a mouse."""
    inner: Any = env.unwrapped
    if inner.num_delta_buttons:
        return {}
    names = [button.name.lower() for button in inner.game.get_available_buttons()]
    pressed = dict(zip(["idle", *names], np.vstack([np.zeros(len(names)), np.eye(len(names))]), strict=True))
    if not isinstance(env.action_space, gymnasium.spaces.Discrete):
        return {name: tuple(buttons.tolist()) for name, buttons in pressed.items()}
    numbers = {tuple(buttons): float(number) for number, buttons in enumerate(inner.button_map)}
    return {name: (numbers[tuple(buttons)],) for name, buttons in pressed.items() if tuple(buttons) in numbers}


class Roam:
    """Walks, turns and sidesteps, each for a while, and turns away from what it has run into: random buttons end with
    the face to a wall of the room in which they began.
    """

    ODDS = {"move_forward": 5.0, "turn_left": 1.5, "turn_right": 1.5, "move_left": 1.0, "move_right": 1.0}  # noqa: RUF012
    STEPS = {"move": 8.0, "turn": 5.0}  # noqa: RUF012
    """For which an action is held, on average."""
    STANDSTILL = 2.0
    """Mean change of a frame's values below which it has not moved."""

    def reset(self, env: gymnasium.Env, rng: np.random.Generator) -> None:
        names = named_actions(env) if hasattr(env.unwrapped, "game") else {}
        if not {"move_forward", "turn_left", "turn_right"} <= names.keys():
            raise InputError("the policy roam walks and turns through Doom: take --policy sticky-random or random here")
        space = ActionSpace.from_gymnasium(env.action_space)
        self.actions = {name: space.unflatten(np.asarray(names[name])) for name in self.ODDS if name in names}
        self.rng, self.name, self.left, self.before = rng, "", 0, np.zeros((1, 1, 3), np.uint8)

    def __call__(self, frame: NDArray[np.uint8]) -> Any:
        if self._has_run_into_something(frame):
            self._begin("turn_left", "turn_right")
        elif self.left == 0:
            self._begin(*self.actions)
        self.left -= 1
        self.before = frame
        return self.actions[self.name]

    def _has_run_into_something(self, frame: NDArray[np.uint8]) -> bool:
        if not self.name.startswith("move") or frame.shape != self.before.shape:
            return False
        return float(np.abs(frame.astype(np.int16) - self.before).mean()) < self.STANDSTILL

    def _begin(self, *names: str) -> None:
        odds = np.array([self.ODDS[name] for name in names])
        self.name = str(self.rng.choice(names, p=odds / odds.sum()))
        self.left = int(self.rng.geometric(1 / self.STEPS[self.name.partition("_")[0]]))
