"""Recordings that others made, by the format in which they lie on a disk.

A reader finds the recordings of its format and gives their moments in order, as they are: how large frames are stored,
which of them are left out and where episodes are cut is the same for all formats, and decided in
`vqvideo.data.importing`. A new format is one file here, and its name in `FORMATS` and in `ImportConfig.format`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vqvideo.spaces import ActionSpace


@dataclass(frozen=True)
class Facts:
    """What can be said of a recording before its frames are decoded."""

    frames: int
    """How many it has."""
    fps: float
    """Frames per second."""
    size: tuple[int, int]
    """(h, w) in pixels, upright."""
    notes: tuple[str, ...] = ()
    """What a user should know of it, such as a variable frame rate."""


class Moment(NamedTuple):
    """A frame, and what led to it from the one before."""

    frame: NDArray[np.uint8]
    """(h, w, 3) uint8 RGB, upright."""
    action: Sequence[float] = ()
    """The flat action; of the first moment it does not count."""
    reward: float = 0.0
    """The reward on the way."""
    terminated: bool = False
    """Whether the environment ended here."""


class Recording(Protocol):
    """One recording."""

    facts: Facts

    def moments(self) -> Iterator[Moment]:
        """All moments in order, decoded one by one. InputError where that fails."""
        ...


class Reader(Protocol):
    """The recordings of one format below a path. Made of that path; InputError if there is none."""

    action_space: ActionSpace
    """Of all of them."""
    names: Sequence[str]
    """By which errors and the store know them, in the order in which they are imported."""

    def size_of(self, name: str) -> int:
        """Bytes on the disk, by which a recording is known again."""
        ...

    def open(self, name: str) -> Recording:
        """Looks into a recording. InputError, with what was found, for one that cannot be read."""
        ...


FORMATS = {"videos": "Videos"}
"""The class of each format's reader, in the module of the format's name."""


def reader_of(format: str, path: Path) -> Reader:
    """The recordings of a format below a path, or in one file.

    Raises:
        InputError: nothing is there.
    """
    return getattr(import_module(f"{__name__}.{format}"), FORMATS[format])(path)
