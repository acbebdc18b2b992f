"""Doom's maze "My Way Home" (ViZDoom), without the files that the game leaves in the current folder."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import gymnasium

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
