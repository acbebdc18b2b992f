"""A small store with everything that an export must keep, and what others read of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from vqvideo.data import write_store
from vqvideo.data.store import Store

SPACES: dict[str, spaces.Space[Any]] = {
    "keys": spaces.Discrete(5, start=-1),
    "stick": spaces.Box(np.array([-1, 0], np.float32), np.array([1, np.inf], np.float32)),
    "pad": spaces.MultiDiscrete([3, 4]),
    "buttons": spaces.MultiBinary(3),
    "all": spaces.Dict({"z": spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2, 2))]), "a": spaces.Discrete(2)}),
    "nothing": spaces.Box(0, 1, (0,)),
}
"""What acts in the store of that name."""
LENGTHS = (5, 21, 1, 8)


def natural(count: int, size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """(t, h, w, 3) uint8: what a camera might see, that is waves of all lengths, which move, and a little noise."""
    rng = np.random.default_rng(seed)
    h, w = size
    t, y, x = np.meshgrid(np.arange(count), np.arange(h), np.arange(w), indexing="ij")
    frames = rng.normal(0, 2, (count, h, w, 3)) + 128
    for length in (6, 12, 24, 48):
        for channel in range(3):
            angle, speed, phase = rng.uniform(0, 2 * np.pi, 3)
            along = x * np.cos(angle) + y * np.sin(angle) + speed * t / 4
            frames[..., channel] += length * 0.7 * np.sin(2 * np.pi * along / length + phase)
    return frames.clip(0, 255).astype(np.uint8)


def make(
    folder: Path,
    space: str = "stick",
    size: tuple[int, int] = (16, 24),
    fps: float = 10,
    without: tuple[str, ...] = (),
) -> Store:
    """Four episodes, the second of which terminates and the third of which is held out, `without` some arrays."""
    acting = SPACES[space]
    acting.seed(0)
    flat = [[_flat(acting.sample()) for _ in range(length)] for length in LENGTHS]
    episodes = [
        {
            "frames": natural(length + 1, size, seed=i),
            "actions": np.array(flat[i], np.float64).reshape(length, -1),
            "rewards": np.linspace(-1, 0.3, length) / 3,
            "terminated": i == 1,
        }
        for i, length in enumerate(LENGTHS)
    ]
    kept = [{name: array for name, array in episode.items() if name not in without} for episode in episodes]
    return write_store(folder, kept, fps=fps, action_space=acting, held_out_every=3, name="MyGame-v3")


def _flat(action: Any) -> list[float]:
    """The numbers of an action in order."""
    if isinstance(action, dict):
        return [number for part in action.values() for number in _flat(part)]
    if isinstance(action, tuple):
        return [number for part in action for number in _flat(part)]
    return np.ravel(action).tolist()


def psnr(got: NDArray[np.uint8], true: NDArray[np.uint8]) -> float:
    """Of the worst frame, in dB."""
    error = ((got.astype(np.float64) - true) ** 2).reshape(len(true), -1).mean(axis=1).max()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))
