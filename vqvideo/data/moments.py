"""Moments of recorded episodes: which ones to begin at, and how to get the environment there again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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
    source: int
    """Number of the clip that it is in."""


def moments(clips: Clips, indices: Iterable[int], frame: int) -> list[Moment]:
    """The moments of frame number `frame` of some clips."""
    found = []
    for index in indices:
        episode, first = clips.locate(int(index))
        entry = clips.entries[episode]
        reader, at = clips.store.reader(entry), first + frame
        found.append(Moment(entry.seed, reader.steps.actions[:at].copy(), reader.frames(at, at + 1)[0], int(index)))
    return found


@dataclass(frozen=True)
class Choice:
    """Which clips to take, by the moment that they lead up to."""

    count: int = 512
    """At most so many."""
    newest: float = 0.0
    """Share of them from the last quarter of all moments."""
    eventful: float = 0.0
    """Share of them, beside those, from moments shortly before an end, or a reward other than the commonest one."""
    reach: int = 20
    """How many steps before."""

    def of(self, clips: Clips, frame: int) -> NDArray[np.int64]:
        """Indices of clips whose frame number `frame` is the moment: each share spread evenly over those there are, the
        others evenly over the episodes and inside each.
        """
        count = min(self.count, len(clips))
        late = np.arange(len(clips) * 3 // 4, len(clips))
        near = np.flatnonzero(_before_events(clips, frame, self.reach)) if self.eventful else late[:0]
        picks = [
            group[np.arange(taken) * len(group) // max(1, taken)]
            for group, share in ((late, self.newest), (near, self.eventful))
            if (taken := min(round(share * count), len(group)))
        ]
        rest = count - sum(map(len, picks))
        return np.concatenate([*picks, clips.spread(rest)] if rest else picks)


def _before_events(clips: Clips, frame: int, reach: int) -> NDArray[np.bool_]:
    """(len(clips),): whether something happens within `reach` steps after frame number `frame` of each clip."""
    steps = [clips.store.reader(entry).steps for entry in clips.entries]
    values, counts = np.unique(np.concatenate([each.rewards for each in steps]), return_counts=True)
    parts = []
    for each in steps:
        until = np.concatenate([[0], ((each.rewards != values[counts.argmax()]) | each.terminated).cumsum()])
        moment = np.arange(frame, len(each.rewards) + 2 - clips.length + frame)
        parts.append(until[np.minimum(moment + reach, len(each.rewards))] > until[moment])
    return np.concatenate(parts)
