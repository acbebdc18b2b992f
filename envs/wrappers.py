"""Wrappers that turn any Gymnasium environment into frames: pixels, action repeat, skipped first steps."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from vqvideo.data.playing import resize
from vqvideo.errors import InputError

# Symbolic grids (MiniGrid's 7x7x3) are uint8 arrays of three channels too, and are no pictures.
SMALLEST_SIDE = 16


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
        return resize(observation[None], self.size)[0]


class PixelFrames(gymnasium.Wrapper):
    """Makes the observation the frame, (h, w, 3) uint8: the env's own picture, or what it renders.

    Grey pictures, (h, w) or (h, w, 1), get three equal channels. Nothing else is converted: the range
    of float pixels, or the order of unusual channels, would be a guess.

    Raises:
        InputError: the env observes pixels of another kind, or renders none.
    """

    def __init__(self, env: gymnasium.Env, key: str | None = None) -> None:
        super().__init__(env)
        self.key = key
        self.rendered = not observes_pixels(env, key)
        if self.rendered:
            self.env.reset()
            height, width = self._frame(None).shape[:2]
        else:
            height, width = (_picture_space(env, key).shape or ())[:2]
        self.observation_space = spaces.Box(0, 255, (height, width, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        observation, info = self.env.reset(seed=seed, options=options)
        return self._frame(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._frame(observation), reward, terminated, truncated, info

    def _frame(self, observation: Any) -> NDArray[np.uint8]:
        if self.rendered:
            picture = self.env.render()
        else:
            picture = observation if self.key is None else observation[self.key]
        return _three_channels(picture, self.unwrapped)


def observes_pixels(env: gymnasium.Env, key: str | None) -> bool:
    """Whether the observation, or its `key`, is a picture; if not, the env must render.

    Raises:
        InputError: it is a picture of a kind that would need guessing, or has no such key.
    """
    space = _picture_space(env, key)
    if not isinstance(space, spaces.Box):
        return False
    problem = _problem(space)
    if problem is not None:
        raise InputError(
            f"{_name(env)} observes {space}: {problem}. Frames are (h, w, 3), (h, w, 1) or (h, w), uint8 in "
            "0..255. Wrap the environment so that it observes those."
        )
    return space.dtype == np.uint8 and _looks_like_picture(space.shape)


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


def _picture_space(env: gymnasium.Env, key: str | None) -> spaces.Space:
    space = env.observation_space
    if key is None:
        return space
    if not isinstance(space, spaces.Dict) or key not in space.spaces:
        has = f"the keys {sorted(space.spaces)}" if isinstance(space, spaces.Dict) else "no keys"
        raise InputError(f"{_name(env)} has no observation {key!r}: it has {has}.")
    if not observes_pixels_box(space[key]):
        raise InputError(f"the observation {key!r} of {_name(env)} is {space[key]}, which is no picture.")
    return space[key]


def observes_pixels_box(space: spaces.Space) -> bool:
    """Whether a leaf space could hold a picture at all, of whatever dtype."""
    return isinstance(space, spaces.Box) and len(space.shape) in (2, 3)


def _looks_like_picture(shape: tuple[int, ...]) -> bool:
    if len(shape) not in (2, 3) or min(shape[:2]) < SMALLEST_SIDE:
        return False
    return len(shape) == 2 or shape[2] in (1, 3)


def _problem(space: spaces.Box) -> str | None:
    """Why a space that is surely a picture cannot be taken as it is; None when it can, or is no picture."""
    shape = space.shape
    if len(shape) != 3:
        return None
    if _looks_like_picture(shape):
        return None if space.dtype == np.uint8 else f"pixels as {space.dtype}, whose range would be a guess"
    if space.dtype != np.uint8:
        return None
    if shape[2] == 4 and min(shape[:2]) >= SMALLEST_SIDE:
        return "four channels; whether the fourth is transparency would be a guess"
    if shape[0] in (1, 3, 4) and min(shape[1:]) >= SMALLEST_SIDE:
        return "channels come first"
    return None


def _three_channels(picture: Any, env: gymnasium.Env) -> NDArray[np.uint8]:
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        got = getattr(picture, "dtype", type(picture).__name__)
        raise InputError(f"{_name(env)} gave a frame of {got}; a frame is a numpy array of uint8 in 0..255.")
    if picture.ndim == 2:
        picture = picture[:, :, None]
    if picture.ndim != 3 or picture.shape[2] not in (1, 3):
        raise InputError(
            f"{_name(env)} gave a frame of shape {picture.shape}; a frame is (h, w, 3), (h, w, 1) or (h, w)."
        )
    return picture if picture.shape[2] == 3 else np.repeat(picture, 3, axis=2)


def _name(env: gymnasium.Env) -> str:
    return env.unwrapped.spec.id if env.unwrapped.spec is not None else type(env.unwrapped).__name__
