"""Doom (ViZDoom): without the files that the game leaves in the current folder, and with actions by name."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

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
