"""Anomalies that are made of normal episodes, with a known beginning and a known severity: a suite for detectors.

Each is a class. Its `applied` says what a camera shows and what the detector is told from the onset on; up to there
the episode is as it was. To add one, write a subclass that names its severities: `suite` finds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, cos, inf, radians, sin
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqvideo.spaces import ActionSpace

Frames = NDArray[np.uint8]
Severity = float | str
_TRIES = 16


class Film(NamedTuple):
    """Frames, and the actions between them that a detector is told."""

    frames: Frames
    """(n, h, w, 3) uint8."""
    actions: NDArray[np.float64]
    """(n - 1, a); of what follows an onset (n, a), those that led to each."""


@dataclass(frozen=True, eq=False)
class Case:
    """A normal episode in which something is to go wrong."""

    number: int
    """Of the episode among those that are tested."""
    film: Film
    """The whole episode."""
    onset: int
    """The last normal frame."""
    count: int
    """How many frames are looked at after it."""
    other: Film
    """Another episode of the same world."""
    space: ActionSpace
    """Of the actions."""
    seed: int
    """Of all that is drawn."""

    def at(self, places: NDArray[np.int64] | Sequence[int]) -> Frames:
        """Frames after the onset: the `places`-th of the episode, counted from the onset, which is 0."""
        return self.film.frames[self.onset + np.asarray(places, np.int64)]

    @property
    def steps(self) -> NDArray[np.int64]:
        """1 .. count."""
        return np.arange(1, self.count + 1)

    @property
    def told(self) -> NDArray[np.float64]:
        """The true actions that led to the frames after the onset, (count, a)."""
        return self.film.actions[self.onset : self.onset + self.count]

    @property
    def rng(self) -> np.random.Generator:
        """A new one, equal for all anomalies."""
        return np.random.default_rng([self.seed, self.number])


@dataclass(frozen=True, eq=False)
class Anomaly(ABC):
    """Something that goes wrong from an onset on."""

    severity: Severity
    """How much; what it counts is said of each anomaly."""

    family: ClassVar[str]
    """What kind of thing goes wrong."""
    severities: ClassVar[tuple[Severity, ...]] = ()
    """The ones of the suite, from mild to severe."""
    lasting: ClassVar[bool] = True
    """Whether all that follows is an anomaly, or the first latent step alone."""

    @property
    def kind(self) -> str:
        """Its family."""
        return self.family

    @property
    def name(self) -> str:
        """What it is called."""
        return "".join(f" {c.lower()}" if c.isupper() else c for c in type(self).__name__).strip()

    @abstractmethod
    def applied(self, case: Case) -> Film | None:
        """What follows the onset, `case.count` frames; None where the episode is too short for it."""


def suite(space: ActionSpace) -> list[Anomaly]:
    """All that can be made of stored episodes, at all their severities; without actions, none that is about them."""
    kinds = [kind for parent in Anomaly.__subclasses__() for kind in (parent, *parent.__subclasses__())]
    return [
        kind(severity) for kind in kinds if space.size or not issubclass(kind, _Told) for severity in kind.severities
    ]


@dataclass(frozen=True, eq=False)
class Played(Anomaly):
    """Films that were made elsewhere: of the real environment with a fault, or of another environment."""

    films: Sequence[Film]
    """What follows the onset, one for each case, empty where there is none; fewer films are taken in turn."""
    title: str
    of: str
    """Its family."""

    @property
    def kind(self) -> str:
        return self.of

    @property
    def name(self) -> str:
        return self.title

    def applied(self, case: Case) -> Film | None:
        frames, actions = self.films[case.number % len(self.films)]
        if len(frames) < case.count:
            return None
        # Another environment may know other actions: those of the episode are told.
        fitting = actions.shape[1:] == case.told.shape[1:]
        return Film(frames[: case.count], actions[: case.count] if fitting else case.told)


# ---------------------------------------------------------------- dynamics


class _Told(Anomaly):
    """The camera is right, and the world does something else than it is told."""

    family = "dynamics"

    def applied(self, case: Case) -> Film | None:
        told = self.commands(case)
        return None if len(told) < case.count else Film(case.at(case.steps), told)

    @abstractmethod
    def commands(self, case: Case) -> NDArray[np.float64]:
        """What the world was told, (n, a)."""


class SwappedActions(_Told):
    """The commands are those of another episode, or at the opposite end of their range: left for right."""

    severities = ("another's", "opposite")

    def commands(self, case: Case) -> NDArray[np.float64]:
        if self.severity == "another's":
            return case.other.actions[case.onset : case.onset + case.count]
        ends = np.array([(column.low, column.high) for column in case.space.columns]).reshape(-1, 2)
        return np.where(np.isfinite(ends).all(axis=1), ends.sum(axis=1), 0.0) - case.told


class DelayedActions(_Told):
    """Each command is carried out so many frames late: what happens was told before."""

    severities = (2, 4, 8)

    def commands(self, case: Case) -> NDArray[np.float64]:
        begin = case.onset + int(self.severity)
        return case.film.actions[begin : begin + case.count]


# ---------------------------------------------------------------- appearance


class _Repainted(Anomaly):
    """The world goes on, and looks otherwise."""

    family = "appearance"

    def applied(self, case: Case) -> Film | None:
        painted = self.painted(case.at(case.steps).astype(np.float64), case)
        return Film(painted.round().clip(0, 255).astype(np.uint8), case.told)

    @abstractmethod
    def painted(self, frames: NDArray[np.float64], case: Case) -> NDArray[np.float64]:
        """Frames (count, h, w, 3) of 0 .. 255."""


class Recoloured(_Repainted):
    """All hues turned, by degrees about the axis of greys."""

    severities = (15, 45, 180)

    def painted(self, frames: NDArray[np.float64], case: Case) -> NDArray[np.float64]:
        # Rodrigues' formula about (1, 1, 1) / sqrt 3.
        c, s = cos(radians(float(self.severity))), sin(radians(float(self.severity))) / 3**0.5
        across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
        turned: NDArray[np.float64] = frames @ (c * np.eye(3) + (1 - c) / 3 + s * across).T
        return turned


class Occluded(_Repainted):
    """A grey square at one place, whose side is a share of the frame's."""

    severities = (0.125, 0.25, 0.5)

    def painted(self, frames: NDArray[np.float64], case: Case) -> NDArray[np.float64]:
        frames[:, *_square(case, float(self.severity), case.rng)] = 128
        return frames


class Noise(_Repainted):
    """Gaussian noise of a standard deviation in grey levels, drawn anew for each frame."""

    severities = (4, 8, 16)

    def painted(self, frames: NDArray[np.float64], case: Case) -> NDArray[np.float64]:
        return frames + float(self.severity) * case.rng.standard_normal(frames.shape)


class Flicker(_Repainted):
    """Every other frame darker, by a share of its light."""

    severities = (0.05, 0.15, 0.4)

    def painted(self, frames: NDArray[np.float64], case: Case) -> NDArray[np.float64]:
        frames[::2] *= 1 - float(self.severity)
        return frames


# ---------------------------------------------------------------- semantics


class AddedObject(_Repainted):
    """A piece of another episode stands in front of the camera, a square of a share of the frame's side."""

    severities = (0.125, 0.25, 0.5)
    family = "semantics"

    def painted(self, frames: NDArray[np.float64], case: Case) -> NDArray[np.float64]:
        rng = case.rng
        there = _square(case, float(self.severity), rng)
        piece = case.other.frames[int(rng.integers(len(case.other.frames)))]
        # Of another place there: the same one would often look the same.
        frames[:, *there] = np.roll(piece, rng.integers(8, 24, 2), axis=(0, 1))[there]
        return frames


class RemovedPiece(_Repainted):
    """What was in a square is gone: filled in from what is left of it to what is right. Of some squares, the one in
    which most was to be seen.
    """

    severities = (0.125, 0.25, 0.5)
    family = "semantics"

    def painted(self, frames: NDArray[np.float64], case: Case) -> NDArray[np.float64]:
        rng, before = case.rng, case.at([0])[0]
        squares = [_square(case, float(self.severity), rng) for _ in range(_TRIES)]
        rows, columns = max(squares, key=lambda square: before[square].std())
        share = np.linspace(0, 1, columns.stop - columns.start)[:, None]
        edges = max(columns.start - 1, 0), min(columns.stop, frames.shape[2] - 1)
        left, right = (frames[:, rows, edge, None] for edge in edges)
        frames[:, rows, columns] = (1 - share) * left + share * right
        return frames


class Teleport(Anomaly):
    """A jump, after which all goes on as it should: so many frames ahead, or (inf) into another episode."""

    severities = (8, 32, inf)
    family = "semantics"
    lasting = False

    def applied(self, case: Case) -> Film | None:
        film, begin = case.other, case.onset
        if self.severity != inf:
            film, begin = case.film, case.onset + int(self.severity)
        end = begin + case.count
        return None if len(film.frames) <= end else Film(film.frames[begin + 1 : end + 1], film.actions[begin:end])


# ---------------------------------------------------------------- camera


class _Reordered(Anomaly):
    """The camera shows right frames at wrong times."""

    family = "camera"

    def applied(self, case: Case) -> Film | None:
        places, told = self.order(case.steps), case.onset + self.acting(case.steps)
        last = max(places.max() + case.onset, told.max() + 1)
        if last >= len(case.film.frames) or places.min() + case.onset < 0:
            return None
        return Film(case.at(places), case.film.actions[told])

    @abstractmethod
    def order(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which frames come first, second, ... after the onset."""

    def acting(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which actions are told of them, by how many come after the onset; by default the true ones of that time."""
        return steps - 1


class Frozen(_Reordered):
    """A new frame comes only with every so-manieth; inf: none at all."""

    severities = (2, 4, inf)

    def order(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        hold = int(min(float(self.severity), len(steps) + 1))
        return steps // hold * hold


class DroppedFrames(_Reordered):
    """One frame of so many comes through, and with it the action after the frame before."""

    severities = (2, 3)

    def order(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        return steps * int(self.severity)

    def acting(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        return (steps - 1) * int(self.severity)


class Reversed(_Reordered):
    """Time runs backwards."""

    severities = (1,)

    def order(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        return -steps

    def acting(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        return -steps


class Darkened(_Repainted):
    """A share of the light is lost; 1 is black."""

    severities = (0.2, 0.5, 1.0)
    family = "camera"

    def painted(self, frames: NDArray[np.float64], case: Case) -> NDArray[np.float64]:
        return frames * (1 - float(self.severity))


class Shifted(_Repainted):
    """The camera is knocked askew: the picture moves to the right by a share of its width."""

    severities = (0.03125, 0.0625, 0.125)
    family = "camera"

    def painted(self, frames: NDArray[np.float64], case: Case) -> NDArray[np.float64]:
        by = max(1, round(float(self.severity) * frames.shape[2]))
        shifted = np.roll(frames, by, axis=2)
        shifted[:, :, :by] = frames[:, :, :1]
        return shifted


def _square(case: Case, share: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a square somewhere in the frame, of a share of its shorter side."""
    h, w = case.film.frames.shape[1:3]
    side = max(2, ceil(share * min(h, w)))
    top, left = (int(rng.integers(0, length - side + 1)) for length in (h, w))
    return slice(top, top + side), slice(left, left + side)
