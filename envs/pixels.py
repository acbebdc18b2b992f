"""Frames of any environment: a picture among its observations, in whatever layout it comes, or what it renders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation
from numpy.typing import NDArray

from vqvideo.envs.api import OLD_API, name_of_env
from vqvideo.errors import InputError

RENDER, OBSERVATION = "render", "observation"
UNSAID = ""
"""What a store shows that names no source: a uint8 picture that is the whole observation, or else the renderer."""
SMALLEST_SIDE = 16
"""Symbolic grids (MiniGrid's 7x7x3) are uint8 arrays of three channels too, and are no pictures."""


# ---------------------------------------------------------------- how a picture lies in an array


class Axes(NamedTuple):
    """What the axes of an array of pixels mean."""

    frames: int = 0
    """How many are stacked along the first axis, the newest last; 0: there is no such axis."""
    colours: int | None = None
    """Of the axes that are left, the one of the channels: 0 or 2; None for gray, (h, w)."""
    channels: int = 1
    """1 gray, 3 RGB, 4 RGBA, 6 and more: stacked RGB, the newest last."""


@dataclass(frozen=True)
class Layout:
    """How pictures lie in a space of observations."""

    space: spaces.Box
    """The space."""
    axes: Axes
    """What its axes mean."""
    problem: str
    """Why it cannot be read without a guess; else ""."""

    @property
    def sure(self) -> bool:
        """Whether it is a picture that nobody needs to ask for. Floats without a colour may as well be measurements."""
        return not self.problem and (np.issubdtype(self.space.dtype, np.integer) or self.axes.colours is not None)

    @property
    def note(self) -> str:
        """What a user should know about the frames; "" for plain ones."""
        shape, frames = self.space.shape, self.axes.frames or self.axes.channels // 3
        if frames > 1:
            return f"of the {frames} frames stacked in {shape} the last is recorded"
        return f"the four channels of {shape} are read as RGBA, and A is left out" if self.axes.channels == 4 else ""

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width."""
        shape = self.space.shape[1:] if self.axes.frames else self.space.shape
        return shape[1:] if self.axes.colours == 0 else shape[:2]

    def frame(self, picture: Any, where: str) -> NDArray[np.uint8]:
        """The picture as (h, w, 3) uint8. InputError, which begins with `where`, if it is not of the space."""
        kind = np.integer if np.issubdtype(self.space.dtype, np.integer) else np.floating
        if not isinstance(picture, np.ndarray) or not np.issubdtype(picture.dtype, kind):
            got = getattr(picture, "dtype", type(picture).__name__)
            raise InputError(f"{where} gave a frame of {got}; its space has numpy arrays of {self.space.dtype}.")
        frames, colours, channels = self.axes
        shape = picture.shape[1:] if frames else picture.shape
        if picture.ndim != len(self.space.shape) or (colours is not None and shape[colours] != channels):
            raise InputError(f"{where} gave a frame of shape {picture.shape}; its space has {self.space.shape}.")
        picture = picture[-1] if frames else picture
        picture = picture[:, :, None] if colours is None else np.moveaxis(picture, colours, -1)
        # What renderers draw counts: their transparency is often left at 0 by chance.
        picture = picture[:, :, :3] if channels == 4 else picture[:, :, -3:]
        return three_channels(self._bytes(picture, where), where)

    def _bytes(self, picture: NDArray[Any], where: str) -> NDArray[np.uint8]:
        if picture.dtype == np.uint8:
            return picture
        high = float(self.space.high.max())
        # Negated, so that NaN is outside too. Filters overshoot a little.
        if not (picture.min() >= -0.01 * high and picture.max() <= 1.01 * high):
            raise InputError(
                f"{where} gave a frame from {picture.min():g} to {picture.max():g}; its space has 0 to {high:g}."
            )
        return np.clip(np.rint(picture * (255 / high)), 0, 255).astype(np.uint8)


def layout_of(space: spaces.Space, stacked: int | None = None) -> Layout | None:
    """How pictures lie in a space; None if it has none.

    Args:
        space: of the observation, or of one of its keys.
        stacked: how many frames a wrapper is known to stack along the first axis.
    """
    if not isinstance(space, spaces.Box):
        return None
    of_stack = stacked is not None and space.shape[:1] == (stacked,)
    axes = _axes(space.shape[1:]) if of_stack else _axes(space.shape)
    if axes is None:
        return None
    axes = axes._replace(frames=space.shape[0]) if of_stack else axes
    low, high = float(space.low.min()), float(space.high.max())
    bounded = (low, high) == (0, 255) or ((low, high) == (0, 1) and np.issubdtype(space.dtype, np.floating))
    if not bounded and (axes.frames or axes.colours == 0 or axes.channels > 3):
        # Other numbers in a rare layout are planes of features and not colours.
        return None
    if axes.frames and axes.frames % 3 == 0 and len(space.shape) == 3 and not of_stack:
        gray = axes.frames
        return Layout(space, axes, f"these are {gray} gray frames or {gray // 3} in colour, channels first")
    known = bounded or space.dtype == np.uint8
    return Layout(space, axes, "" if known else f"pixels as {space.dtype}, whose range would be a guess")


def _axes(shape: tuple[int, ...]) -> Axes | None:
    if len(shape) == 2 and _sides(shape):
        return Axes()
    if len(shape) == 3 and _sides(shape[:2]):
        c = shape[2]
        if c in (1, 3, 4) or (c % 3 == 0 and c < SMALLEST_SIDE):
            return Axes(colours=2, channels=c)
    if len(shape) == 3 and _sides(shape[1:]) and shape[0] < SMALLEST_SIDE:
        return Axes(colours=0, channels=shape[0]) if shape[0] in (1, 3) else Axes(frames=shape[0])
    if len(shape) == 4:
        axes = _axes(shape[1:])
        single = axes is not None and not axes.frames and axes.colours is not None and axes.channels <= 4
        return axes._replace(frames=shape[0]) if axes and single else None
    return None


def _sides(shape: tuple[int, ...]) -> bool:
    return min(shape) >= SMALLEST_SIDE


def three_channels(picture: Any, where: str) -> NDArray[np.uint8]:
    """A uint8 picture (h, w), or (h, w, c) of 1, 3 or 4 channels, as (h, w, 3); transparency is left out."""
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        got = getattr(picture, "dtype", f"{type(picture).__name__}")
        more = ""
        if isinstance(picture, list):
            more = " Give the picture alone, and not a list of them as for 'rgb_array_list'."
        if picture is None:
            more = f" Draw for render_mode='rgb_array', which the constructor gets. {OLD_API}"
        raise InputError(f"{where} gave a frame of {got}; a frame is a numpy array of uint8 in 0..255.{more}")
    if picture.ndim == 2:
        picture = picture[:, :, None]
    if picture.ndim != 3 or picture.shape[2] not in (1, 3, 4):
        raise InputError(f"{where} gave a frame of shape {picture.shape}; a frame is (h, w, 3), (h, w, 1) or (h, w).")
    colours = picture[:, :, :3] if picture.shape[2] > 1 else np.repeat(picture, 3, axis=2)
    return np.ascontiguousarray(colours)


# ---------------------------------------------------------------- which picture


class Source(NamedTuple):
    """Where frames can come from."""

    name: str
    """RENDER, OBSERVATION, or a key of the observation; "arm/camera" for a key inside a key."""
    path: tuple[Any, ...] = ()
    """Keys and indices that lead to the picture in an observation."""
    layout: Layout | None = None
    """Of the picture; None for what is rendered, and for what is no picture."""
    note: str = ""
    """What a user should know, when nobody chose it."""


def choose(env: gymnasium.Env, asked: str | None = None) -> Source:
    """Where the frames of an environment come from.

    Args:
        env: the environment.
        asked: a key of the observation; RENDER; OBSERVATION, which never renders; or None: the picture that is or is
            in the observation, or else the renderer.

    Raises:
        InputError: there is no such picture, or it or the choice between several would be a guess.
    """
    if asked == UNSAID:
        space = env.observation_space
        plain = space.dtype == np.uint8 and (len(space.shape or ()) == 2 or (space.shape or ())[2:] in ((1,), (3,)))
        asked = OBSERVATION if plain and layout_of(space) else RENDER
    if asked == RENDER:
        return Source(RENDER)
    sources = {source.name: source for source in _sources(env.observation_space, _stacked(env))}
    if asked in sources:
        return _checked(env, sources[asked])
    if asked is None:
        return _surest(env, sources)
    sure = [source for source in sources.values() if source.layout and source.layout.sure]
    if asked == OBSERVATION and len(sure) == 1:
        return _checked(env, sure[0])
    keys = "it has no keys; " if OBSERVATION in sources else ""
    raise InputError(
        f"{name_of_env(env)} has no observation {asked!r}: {keys}--pixels takes {', '.join(sources)} or {RENDER}"
    )


def _sources(space: spaces.Space, stacked: int | None, path: tuple[Any, ...] = ()) -> Iterator[Source]:
    """All parts of an observation that have no parts themselves."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        children = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
        for key, child in children:
            yield from _sources(child, stacked, (*path, key))
    else:
        yield Source("/".join(map(str, path)) or OBSERVATION, path, layout_of(space, stacked))


def _stacked(env: gymnasium.Env) -> int | None:
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, FrameStackObservation):
            return env.stack_size
        env = env.env
    return None


def _checked(env: gymnasium.Env, source: Source) -> Source:
    """The source with what is to be said of it. InputError if it is no picture that can be read."""
    layout = source.layout
    if layout is None:
        raise InputError(
            f"the observation {source.name!r} of {name_of_env(env)} is no picture: the space is "
            f"{env.observation_space!s:.300}"
        )
    if layout.problem:
        raise InputError(
            f"{name_of_env(env)} observes {layout.space!s:.200}: {layout.problem}. Wrap the environment so that it "
            "observes (h, w, 3) uint8 in 0..255 or floats in a Box from 0 to 1, or record with --pixels render"
        )
    return source._replace(note=layout.note)


def _surest(env: gymnasium.Env, sources: dict[str, Source]) -> Source:
    """The one picture that nobody needs to ask for, or else the renderer."""
    pictures = [source for source in sources.values() if source.layout]
    sure = [source for source in pictures if source.layout and source.layout.sure]
    if len(sure) > 1:
        raise InputError(
            f"{name_of_env(env)} observes {len(sure)} pictures: choose one with --pixels "
            f"{' or '.join(source.name for source in sure)}, or what it draws with --pixels render"
        )
    for source in sure:
        source = _checked(env, source)
        chosen = f"the frames are the observation {source.name!r}; --pixels render records what is drawn"
        notes = [source.note] if source.name == OBSERVATION else [chosen, source.note]
        return source._replace(note="; ".join(filter(None, notes)))
    for source in pictures:
        if source.name == OBSERVATION and source.layout and source.layout.problem:
            return _checked(env, source)
    # Numbers that may be a picture or not: as if they were none, but not without a word.
    options = " or ".join(f"--pixels {source.name}" for source in pictures)
    return Source(RENDER, note=f"the frames are what is drawn; {options} records what is observed" if options else "")


class PixelFrames(gymnasium.Wrapper):
    """Makes the observation the frame, (h, w, 3) uint8: a picture that the environment observes, or what it renders.

    Gray becomes three equal channels, floats of a space from 0 to 1 become 0..255, channels first become channels
    last, of stacked frames the last is taken, and the transparency of RGBA is left out.

    Args:
        env: the environment.
        pixels: as `choose` takes it.

    Raises:
        InputError: no picture, or one that would need a guess.
    """

    def __init__(self, env: gymnasium.Env, pixels: str | None = None) -> None:
        super().__init__(env)
        self.source = choose(env, pixels)
        if self.source.layout is None:
            self.env.reset()
            size = self._frame(None).shape[:2]
        else:
            size = self.source.layout.size
        self.observation_space = spaces.Box(0, 255, (*size, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        observation, info = self.env.reset(seed=seed, options=options)
        return self._frame(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._frame(observation), reward, terminated, truncated, info

    def _frame(self, observation: Any) -> NDArray[np.uint8]:
        if self.source.layout is None:
            return three_channels(self.env.render(), f"render() of {name_of_env(self)}")
        for key in self.source.path:
            observation = observation[key]
        return self.source.layout.frame(observation, name_of_env(self))
