"""What of a recording is stored: every n-th moment, its frame at the size of the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vqvideo.data.formats import Moment

_FITS: dict[str, Callable[[Image.Image, tuple[int, int], Image.Resampling], Image.Image]] = {
    "crop": ImageOps.fit,
    "pad": ImageOps.pad,
    "stretch": Image.Image.resize,
}


def thinned(moments: Iterator[Moment], every: int, aggregate: str) -> Iterator[tuple[int, Moment]]:
    """Every n-th of the moments with all that led to it from the one before, and its number. An end counts although it
    lies between.
    """
    skipped: list[Moment] = []
    for number, moment in enumerate(moments):
        skipped.append(moment)
        if number % every == 0 or moment.terminated:
            yield number, _together(skipped, aggregate)
            skipped = []


def _together(moments: list[Moment], aggregate: str) -> Moment:
    """The last of some moments, which what led to all of them led to."""
    last = moments[-1]
    if len(moments) == 1:
        return last
    actions = np.array([moment.action for moment in moments], np.float64)
    chosen = {"last": actions[-1], "mean": actions.mean(axis=0), "sum": actions.sum(axis=0)}[aggregate]
    return last._replace(action=chosen, reward=sum(moment.reward for moment in moments))


def fitted(frame: NDArray[np.uint8], size: tuple[int, int], fit: str) -> NDArray[np.uint8]:
    """A frame (h, w, 3) uint8 at `size` (h, w); `fit` as `ImportConfig.fit` says."""
    h, w = size
    # Like the recorder: antialiased when it shrinks.
    return np.array(_FITS[fit](Image.fromarray(frame), (w, h), Image.Resampling.BILINEAR))
