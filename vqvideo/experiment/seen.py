"""What recorded episodes show that settings follow from: how fine the picture changes, what squares it is drawn of, how
often something is earned or ends, and how long episodes are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.episode import Steps
from vqvideo.data.index import EpisodeEntry
from vqvideo.data.store import Store
from vqvideo.evaluation.metrics import evenly

LEAST = 30
"""Changes from frame to frame, at least, that say something of all others."""
_EPISODES, _FRAMES = 40, 25
"""Training episodes that are looked at, and frames of each."""
_LONGER = 400
"""Episodes whose rewards are looked at: these are small."""
_MOVED = 0.05
"""Share of the full range by which a pixel changes that has changed."""
_TILES = (16, 8, 4)
FEW = 256
"""Kinds of squares of pixels that are soon learnt."""
_MOST_TILES = 128
"""Kinds of tiles, at most: of a court with a ball that moves by less than a square there are ever more."""
_WATCHED = 200
"""Frames of an episode over which those are spread that tiles are looked for in."""
_KNOWN = 0.75
"""Share of the kinds of tiles that half of the episodes show, at least."""


@dataclass(frozen=True)
class Seen:
    """What the training episodes of a store show."""

    changed: float
    """Mean share of the pixels that change from one frame to the next."""
    moving: float
    """Mean share of the pixels that change at some time in the first 25 frames: of small things on a ground that stays
    a little, of a camera that moves nearly all.
    """
    tile: int | None
    """Side in pixels of the squares that the pictures are drawn of, each of a few kinds; None if there are none."""
    kinds: int
    """How many different squares there are, of that side or, without tiles, of 4 pixels."""
    lengths: tuple[int, ...]
    """Steps of each training episode."""
    rewards: float
    """Share of the steps that bring another reward than the commonest one."""
    ends: float
    """Share of the steps that end an episode, where nobody cut it."""
    chosen: bool
    """Whether an action is one of several, which an agent picks anew at each step."""


@lru_cache(maxsize=4)
def look(store: Store) -> Seen | None:
    """What the training episodes of a store show; None if they are too few to say."""
    train = store.split("train")
    frames = [store.reader(entry).frames(0, min(entry.length + 1, _FRAMES)) for entry in _spread(train, _EPISODES)]
    moved = [_moved(part) for part in frames]
    if sum(map(len, moved)) < LEAST:
        return None
    watched = [_spread_frames(store, entry) for entry in _spread(train, _EPISODES)]
    tile = _tile(watched)
    steps = [store.reader(entry).steps for entry in _spread(train, _LONGER)]
    return Seen(
        changed=float(np.concatenate(moved).mean()),
        moving=float(np.mean([part.any(axis=0).mean() for part in moved])),
        tile=tile,
        kinds=_kinds(watched, tile) if tile else _kinds(frames, _TILES[-1]),
        lengths=tuple(entry.length for entry in train),
        rewards=_eventful(steps),
        ends=float(np.concatenate([part.terminated for part in steps]).mean()),
        chosen=store.meta.action_space.to_json()["kind"] == "discrete",
    )


def _spread(entries: tuple[EpisodeEntry, ...], count: int) -> list[EpisodeEntry]:
    return [entries[number] for number in evenly(len(entries), count)]


def _spread_frames(store: Store, entry: EpisodeEntry) -> NDArray[np.uint8]:
    """Some of the frames of an episode, from its beginning on."""
    frames = store.reader(entry).frames(0, min(entry.length + 1, _WATCHED))
    return frames[evenly(len(frames), _FRAMES)]


def _moved(frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(t - 1, h, w): which pixels of frames (t, h, w, c) have changed since the frame before."""
    change = np.abs(np.diff(frames.astype(np.int16), axis=0)).max(axis=-1)
    return np.asarray(change > _MOVED * 255)


def _tile(frames: list[NDArray[np.uint8]]) -> int | None:
    """Side of the squares that the pictures are drawn of: those of which there are the fewest kinds, since parts of
    them, or several side by side, are of more; and hardly a new kind comes with more episodes, as it does where things
    move by less than a square.
    """
    kinds = {side: _kinds(frames, side) for side in (*_TILES, _TILES[-1] // 2) if _divides(side, frames[0])}
    fewest = min(kinds, key=lambda side: (kinds[side], -side), default=0)
    closed = fewest in _TILES and kinds[fewest] <= _MOST_TILES and _kinds(frames[::2], fewest) >= _KNOWN * kinds[fewest]
    return fewest if closed else None


def _divides(side: int, frames: NDArray[np.uint8]) -> bool:
    return not any(length % side for length in frames.shape[1:3])


def _kinds(frames: list[NDArray[np.uint8]], side: int) -> int:
    """How many different squares of `side` pixels there are."""
    return len({square.tobytes() for part in frames for square in _squares(part, side)})


def _squares(frames: NDArray, side: int) -> NDArray:
    """(t, h, w, c) as rows of whole squares, (n, side * side * c); what is left at the edges is left out."""
    t, h, w, c = frames.shape
    rows, columns = h // side, w // side
    cut = frames[:, : rows * side, : columns * side].reshape(t, rows, side, columns, side, c)
    return cut.swapaxes(2, 3).reshape(-1, side * side * c)


def _eventful(steps: list[Steps]) -> float:
    """Share of the steps whose reward is not the commonest one."""
    _, counts = np.unique(np.concatenate([part.rewards for part in steps]), return_counts=True)
    return 1 - float(counts.max() / counts.sum())
