"""Small environments and policies for tests: one per action space, and ones that break in known ways.

They live in a module of their own so that worker processes can import them.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from vqvideo.data.episode import Episode, EpisodeReader
from vqvideo.data.episode_writer import WrittenEpisode

ACTION_SPACES: dict[str, spaces.Space] = {
    "box": spaces.Box(-1.0, 1.0, (3,), np.float32),
    "unbounded box": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "half-bounded box": spaces.Box(np.array([5.0, -np.inf]), np.array([np.inf, -5.0]), dtype=np.float64),
    "matrix box": spaces.Box(-2.0, 3.0, (2, 2), np.float64),
    "integer box": spaces.Box(0, 9, (2,), np.int64),
    "discrete": spaces.Discrete(5),
    "discrete from 3": spaces.Discrete(4, start=3),
    "multi-discrete": spaces.MultiDiscrete([3, 4]),
    "multi-binary": spaces.MultiBinary(4),
    "tuple": spaces.Tuple([spaces.Discrete(3), spaces.Box(0.0, 1.0, (2,), np.float32)]),
    "empty box": spaces.Box(0.0, 1.0, (0,), np.float32),
    "empty tuple": spaces.Tuple([]),
    "dict": spaces.Dict(
        arm=spaces.Box(-1.0, 1.0, (2,), np.float32),
        buttons=spaces.Dict(jump=spaces.Discrete(2), pads=spaces.MultiBinary(2)),
    ),
}


every_action_space = pytest.mark.parametrize("action_kind", sorted(ACTION_SPACES))


class StubEnv(gymnasium.Env):
    """Draws noise from its seed; refuses actions outside its space; ends after `length` steps."""

    def __init__(self, kind: str = "discrete", side: int = 20, length: int = 50) -> None:
        self.action_space = ACTION_SPACES[kind]
        self.observation_space = spaces.Box(0, 255, (side, side, 3), np.uint8)
        self.length = length

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self.frame(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        self.steps += 1
        return self.frame(), 0.5, self.steps == self.length, False, {}

    def frame(self) -> np.ndarray:
        return self.np_random.integers(0, 256, self.observation_space.shape, dtype=np.uint8)


class BreakingEnv(StubEnv):
    """Breaks at step 3 of the episode with env seed `seed`; only once if `once` names a note."""

    def __init__(self, how: str, seed: int, once: Path | None = None) -> None:
        super().__init__()
        self.how, self.bad_seed, self.once = how, seed, once

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        self.seed_now = seed
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        done_before = self.once is not None and self.once.exists()
        if self.seed_now == self.bad_seed and self.steps == 3 and not done_before:
            if self.once is not None:
                self.once.touch()
            self._break()
        return super().step(action)

    def _break(self) -> None:
        if self.how == "raises":
            raise OSError("the emulator is gone")
        if self.how == "exits":
            os._exit(3)
        if self.how == "segfaults":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.how == "hangs":
            time.sleep(600)


class Slow(StubEnv):
    """Takes `seconds` in one place, and as good as no time elsewhere."""

    def __init__(self, where: str, seconds: float) -> None:
        super().__init__()
        self.where, self.seconds = where, seconds
        self._wait("start")

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        self._wait("reset")
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self._wait("step")
        return super().step(action)

    def _wait(self, where: str) -> None:
        if where == self.where:
            time.sleep(self.seconds)


class OddFrames(StubEnv):
    """Gives frames of a kind that nothing may silently convert, from the third step on."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def frame(self) -> Any:
        frame = super().frame()
        if self.steps < 3:
            return frame
        return {
            "larger": np.zeros((24, 24, 3), np.uint8),
            "float": frame.astype(np.float32),
            "int64": frame.astype(np.int64),
            "rgba": np.zeros((20, 20, 4), np.uint8),
            "gray": frame[:, :, 0],
            "black": np.zeros_like(frame),
        }[self.kind]


class Observes(StubEnv):
    """Observes samples of any space, and draws squares of 17 pixels."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, space: spaces.Space, render_mode: str | None = None) -> None:
        super().__init__()
        self.observation_space, self.render_mode = space, render_mode

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        self.observation_space.seed(seed)
        return super().reset(seed=seed)

    def frame(self) -> Any:
        self.seen = self.observation_space.sample()
        return self.seen

    def render(self) -> Any:
        return np.full((17, 17, 3), 70, np.uint8)


class Blank(StubEnv):
    """Always shows the same brightness."""

    brightness = 0

    def frame(self) -> np.ndarray:
        return np.full((20, 20, 3), self.brightness, np.uint8)


class Still(Blank):
    brightness = 80


class Invisible(StubEnv):
    """Observes numbers and cannot render."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 1, (4,), np.float32)


class ReusesItsArray(StubEnv):
    """Draws every frame into one array, as some simulators do."""

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        self.array = np.zeros((20, 20, 3), np.uint8)
        return super().reset(seed=seed)

    def frame(self) -> np.ndarray:
        self.array[:] = self.steps
        return self.array


class SamplePolicy:
    """Samples the space, as simple as can be."""

    def reset(self, env: gymnasium.Env, rng: np.random.Generator) -> None:
        self.space = env.action_space
        self.space.seed(int(rng.integers(2**31)))

    def __call__(self, frame: np.ndarray) -> Any:
        return self.space.sample()


class FixedPolicy(SamplePolicy):
    """Always gives `action`, valid or not."""

    def __init__(self, action: Any) -> None:
        self.action = action

    def __call__(self, frame: np.ndarray) -> Any:
        return self.action


class MemoryWriter:
    """Keeps episodes in a dict; `stop_after` episodes it behaves as if the user had pressed Ctrl-C."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.episodes: dict[int, Episode] = {}
        self.splits: dict[int, str] = {}
        self.stop_after = stop_after
        self._place = TemporaryDirectory()
        self.folder = Path(self._place.name)

    @property
    def indices(self) -> set[int]:
        return set(self.episodes)

    def add(self, index: int, episode: WrittenEpisode, split: str) -> None:
        assert index not in self.episodes
        self.episodes[index], self.splits[index] = EpisodeReader(episode.path).episode(), split
        if len(self.episodes) == self.stop_after:
            raise KeyboardInterrupt
