"""Films for those who only look at them: what PyAV reads, or an episode of a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.episode import CHUNK
from vqvideo.data.formats.videos import Film
from vqvideo.data.kept import fitted
from vqvideo.data.store import Store
from vqvideo.errors import InputError


class Source(NamedTuple):
    """A film on its way in."""

    frames: Iterator[NDArray[np.uint8]]
    """(h, w, 3) uint8, decoded as they are asked for."""
    fps: float
    """Frames per second."""
    actions: NDArray[np.float64] | None
    """(T, a): those between T+1 frames; None where nobody wrote them down."""
    name: str
    """For people."""


def film(path: Path, size: tuple[int, int], fit: str | None, fps: float | None = None) -> Source:
    """A film.

    Args:
        path: the file.
        size: (h, w) of the frames that are wanted.
        fit: how frames of another size become that: crop, pad or stretch; None: they are refused.
        fps: frames per second of a film that does not say it.

    Raises:
        InputError: no film that can be read, frames of another size, or no rate.
    """
    found = Film(path)
    rate = fps or found.facts.fps
    if rate is None:
        raise InputError(f"{path}: it does not say how fast it is: --fps N")
    if found.facts.size != size and fit is None:
        (h, w), (th, tw) = found.facts.size, size
        raise InputError(
            f"{path}: frames of {w} x {h} pixels, the tokenizer takes {tw} x {th}: --resize crop|pad|stretch"
        )
    frames = (fitted(frame, size, fit or "stretch") for frame in found.frames())
    return Source(frames, rate, None, path.name)


def episode(folder: Path, number: int) -> Source:
    """An episode of a store. InputError if there is none of this number."""
    store = Store.open(folder)
    entry = next((entry for entry in store.entries if entry.index == number), None)
    if entry is None:
        raise InputError(f"{folder}: no episode {number}, it has {len(store.entries)} from {store.entries[0].index} on")
    reader = store.reader(entry)
    blocks = range(0, reader.shape[0], CHUNK)
    frames = (frame for start in blocks for frame in reader.frames(start, min(start + CHUNK, reader.shape[0])))
    return Source(frames, store.meta.fps, reader.steps.actions, f"{store.meta.env_id}, episode {number}")
