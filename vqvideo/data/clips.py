"""Clips for training: every window of an episode, and the order in which training sees them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vqvideo.data.episode import Steps
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.spaces import as_float32

Clip = dict[str, Tensor]
"""frames (t, 3, h, w) uint8, actions (t-1, a) float32, rewards (t-1,) float32, terminated (t-1,) bool."""


def to_video(frames: NDArray[np.uint8]) -> Tensor:
    """Frames as they are recorded, (..., h, w, 3), as a tensor (..., 3, h, w) that shares their memory."""
    # Not made contiguous: stacked clips keep channels last in memory, which is what the convolutions want. Copies in
    # order would be copied back there, and loading and the model's first step took twice as long.
    return torch.from_numpy(frames).movedim(-1, -3)


class Clips(Dataset[Clip]):
    """All windows of `length` frames that lie inside one episode of a split, one frame apart.

    Episodes shorter than that are left out with a log line. Whether all files are there in their recorded size is
    looked at here; what is in them when they are first read.

    Episodes are decoded once and kept in memory while they fit into `cache_gib` (of each process that
    reads); beyond that, the chunks that a clip needs are decoded on demand.

    Args:
        store: where the episodes are.
        split: "train" or "held_out".
        length: t, frames per clip; a clip has t-1 actions.
        cache_gib: memory for decoded frames, in GiB.

    Raises:
        InputError: no episode of the split is long enough, or a file is missing or of another size.
    """

    def __init__(self, store: Store, split: str, length: int, cache_gib: float = 4.0) -> None:
        if length < 1:
            raise InputError(f"clip length {length}, expected at least 1 frame")
        self.store = store
        self.length = length
        self.entries = store.long_enough(split, length)
        store.check_sizes(store.split(split))
        # Numpy only: workers that read a list of objects would copy its memory page by page.
        self._windows = np.array([e.length + 2 - length for e in self.entries], dtype=np.int64)
        self._apart = (self._windows - 1) // length + 1
        self._ends = np.cumsum(self._windows)
        self._cache: dict[int, tuple[NDArray[np.uint8], Steps]] = {}
        self._room = int(cache_gib * 2**30)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Clip:
        episode, start = self.locate(index)
        stop = start + self.length
        frames, steps = self._read(episode, start, stop)
        return {
            "frames": to_video(frames),
            "actions": torch.from_numpy(as_float32(steps.actions[start : stop - 1])),
            "rewards": torch.from_numpy(steps.rewards[start : stop - 1].copy()),
            "terminated": torch.from_numpy(steps.terminated[start : stop - 1].copy()),
        }

    @property
    def apart(self) -> int:
        """How many clips fit into the episodes without overlap."""
        return int(self._apart.sum())

    def locate(self, index: int) -> tuple[int, int]:
        """Which of the split's long enough episodes clip `index` comes from, and its first frame there."""
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        episode = int(np.searchsorted(self._ends, index, side="right"))
        return episode, int(index - self._ends[episode] + self._windows[episode])

    def spread(self, count: int) -> NDArray[np.int64]:
        """Indices of `count` clips for evaluation, always the same: from as many episodes as possible,
        evenly spaced inside each, without overlap while there is room. Episodes that give a single clip give
        it at different times, so that a few clips do not all show the same part of an episode.

        Fewer when there are fewer clips in all.
        """
        shares = self._shares(min(count, len(self)))
        firsts = self._ends - self._windows
        starts = [
            first + (_evenly(int(windows), int(share)) if share != 1 else _scattered(int(windows), episode))
            for episode, (first, windows, share) in enumerate(zip(firsts, self._windows, shares, strict=True))
        ]
        return np.concatenate(starts).astype(np.int64)

    def _shares(self, count: int) -> NDArray[np.int64]:
        """How many of `count` clips each episode gives, in rounds of one clip per episode with room."""
        shares = np.zeros_like(self._windows)
        for room in (self._apart, self._windows):
            while count and (open_ := np.flatnonzero(shares < room)).size:
                taken = open_[_evenly(len(open_), min(count, len(open_)))]
                shares[taken] += 1
                count -= len(taken)
        return shares

    def _read(self, episode: int, start: int, stop: int) -> tuple[NDArray[np.uint8], Steps]:
        """Frames start..stop-1 of an episode, and all its steps."""
        # Whole episodes are kept, not chunks: each is drawn from dozens of times an epoch, and a clip that lies across
        # two chunks would decode both for every draw.
        if episode not in self._cache:
            reader = self.store.reader(self.entries[episode])
            size = int(np.prod(reader.shape, dtype=np.int64))
            if size > self._room:
                return reader.frames(start, stop), reader.steps
            self._cache[episode] = reader.frames(0, reader.shape[0]), reader.steps
            self._room -= size
        frames, steps = self._cache[episode]
        # A copy: whoever changes a clip in place must not change the next epoch's.
        return frames[start:stop].copy(), steps


def _scattered(size: int, number: int) -> NDArray[np.int64]:
    """One of 0..size-1; consecutive `number`s are spread by the golden ratio."""
    return np.array([int((number * 0.6180339887 + 0.5) % 1 * size)])


def _evenly(size: int, count: int) -> NDArray[np.int64]:
    """`count` different numbers of 0..size-1, evenly spaced from end to end; the middle one for one."""
    if count == 1:
        return np.array([(size - 1) // 2])
    return np.arange(count, dtype=np.int64) * (size - 1) // max(count - 1, 1)


class StartClips(NamedTuple):
    """Real clips of one length."""

    frames: Tensor
    """(b, t, c, h, w) uint8."""
    actions: Tensor
    """(b, t - 1, a) float32 flat actions: number i leads from frame i to frame i + 1."""
    rewards: Tensor
    """(b, t - 1) float32."""


def stack_frames(clips: Clips, indices: list[int]) -> Tensor:
    """Chosen clips as (b, t, c, h, w) uint8."""
    return torch.stack([clips[i]["frames"] for i in indices])
