"""Which frames of a recording become an episode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Span(NamedTuple):
    """The frames of an episode, from the first to the last, of which every n-th is kept."""

    first: int
    last: int
    terminated: bool
    """Whether the environment ended with the last one."""

    @property
    def frames(self) -> int:
        """How many there are, kept or not."""
        return self.last - self.first + 1


def spans(begin: int, frames: int, every: int, steps: int, ends: ArrayLike = ()) -> Iterator[Span]:
    """Cuts a recording into episodes that do not overlap.

    Args:
        begin: number of the frame to begin with.
        frames: of the recording.
        every: n, of which every n-th frame is kept, and the last one of an episode that terminated.
        steps: of the longest episode.
        ends: numbers, in order, of the frames with which the environment ended.

    Yields:
        Spans of at least two frames that are kept; what is left of a recording may be a single one, to which nothing
        leads.
    """
    ordered, first = np.asarray(ends, np.int64), begin
    while first < frames - 1:
        longest = first + steps * every
        place = int(np.searchsorted(ordered, first, side="right"))
        if place < len(ordered) and ordered[place] <= longest:
            span = Span(first, int(ordered[place]), True)
            first = span.last + 1
        else:
            span = Span(first, first + (min(longest, frames - 1) - first) // every * every, False)
            first = span.last + every
        if span.last > span.first:
            yield span
