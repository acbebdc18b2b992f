"""Moments of recorded episodes: how to get the environment there again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.clips import Clips


class Moment(NamedTuple):
    """A moment of a recorded episode."""

    seed: int
    """What the environment was reset with."""
    actions: NDArray[np.float64]
    """(k, a) flat ones, which led from there to the moment."""
    frame: NDArray[np.uint8]
    """(h, w, 3) stored frame of the moment."""


def moments(clips: Clips, indices: Iterable[int], frame: int) -> list[Moment]:
    """The moments of frame number `frame` of some clips."""
    found = []
    for index in indices:
        episode, first = clips.locate(int(index))
        entry = clips.entries[episode]
        reader, at = clips.store.reader(entry), first + frame
        found.append(Moment(entry.seed, reader.steps.actions[:at].copy(), reader.frames(at, at + 1)[0]))
    return found
