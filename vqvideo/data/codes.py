"""Episodes as codes: the segments that they are encoded in, and the clips of codes that the prior trains on.

Every episode is encoded in overlapping segments, each as a clip of its own. So the prior meets clips that have just
begun (as every dream begins, from a few frames of context) as well as clips long under way, at every phase of the
temporal stride.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vqvideo.data.clips import to_video
from vqvideo.data.config import SegmentConfig
from vqvideo.data.episode import Episode, EpisodeReader
from vqvideo.errors import InputError
from vqvideo.spaces import as_float32

logger = logging.getLogger(__name__)
_BATCH = 16
"""Segments that the tokenizer encodes at once."""
_NEWEST = 0.75
"""Where the newest frames begin."""


class Tokenizer(Protocol):
    """What is asked of a tokenizer here."""

    stride: int

    def clip_length(self, latent_steps: int) -> int: ...

    def encode(self, frames: Tensor) -> Tensor: ...


class CodeArrays(NamedTuple):
    """The segments of some episodes, one after the other along S latent steps."""

    codes: NDArray[np.int32]
    """(S, h, w)."""
    actions: NDArray[np.float32]
    """(S, s, a): the actions that led to each step; zeros for the first step of a segment."""
    rewards: NDArray[np.float32]
    """(S,): summed over each step; 0 for the first step of a segment."""
    terminated: NDArray[np.bool_]
    """(S,): the episode ends in the step."""
    starts: NDArray[np.int64]
    """(segments + 1,): where each segment begins, and the end."""
    firsts: NDArray[np.int64]
    """(segments,): the frame that each segment begins with, of all the episodes one after the other."""


def segment_starts(frames: int, length: int, every: int) -> list[int]:
    """First frames of the segments of an episode; the last segment ends with the episode's last frame, so that
    rewards and terminations at the end are never left out.
    """
    last = frames - length
    return sorted({*range(0, last + 1, every), last})


def encode_episode(
    tokenizer: Tokenizer, episode: Episode | EpisodeReader, cfg: SegmentConfig, device: torch.device
) -> CodeArrays:
    """The segments of one episode of at least 1 + s frames. Of a reader, the frames of a few segments are in memory."""
    s = tokenizer.stride
    steps = min(cfg.latent_steps, 1 + episode.length // s)
    length = tokenizer.clip_length(steps)
    firsts = segment_starts(episode.length + 1, length, cfg.every)
    codes = torch.cat([tokenizer.encode(part.to(device)).cpu() for part in _batches(episode, firsts, length)])
    beside = episode.steps

    def grouped(values: NDArray, empty: NDArray) -> NDArray:
        """(T, ...) per frame to (segments * steps, s, ...) per latent step."""
        parts = []
        for first in firsts:
            taken = values[first : first + length - 1].reshape(steps - 1, s, *values.shape[1:])
            parts += [empty[None], taken]
        return np.concatenate(parts)

    a = beside.actions.shape[1]
    return CodeArrays(
        codes.flatten(0, 1).numpy().astype(np.int32),
        grouped(as_float32(beside.actions), np.zeros((s, a), np.float32)),
        _summed(grouped(beside.rewards, np.zeros(s, np.float32))),
        np.asarray(grouped(beside.terminated, np.zeros(s, np.bool_)).any(axis=1)),
        np.arange(len(firsts) + 1) * steps,
        np.array(firsts),
    )


def _batches(episode: Episode | EpisodeReader, firsts: Sequence[int], length: int) -> Iterator[Tensor]:
    """The frames of all segments, (b, t, c, h, w) uint8."""
    for number in range(0, len(firsts), _BATCH):
        batch = firsts[number : number + _BATCH]
        begin, end = batch[0], batch[-1] + length
        frames = episode.frames(begin, end) if isinstance(episode, EpisodeReader) else episode.frames[begin:end]
        yield to_video(np.stack([frames[first - begin :][:length] for first in batch]))


@np.errstate(over="ignore")
def _summed(rewards: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums (S,) of rewards (S, s); one that is too large for a number is the largest."""
    return as_float32(rewards.sum(axis=1, dtype=np.float32))


def joined(parts: Sequence[CodeArrays]) -> CodeArrays:
    """The segments of all parts in their order."""
    codes, actions, rewards, terminated, *_ = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return CodeArrays(codes, actions, rewards, terminated, *_segments(parts))


def _segments(parts: Sequence[CodeArrays]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`starts` and `firsts` of all parts together."""
    steps = np.cumsum([0, *(len(part.codes) for part in parts)])
    # The last segment of an episode ends with its last frame, so this counts the frames.
    lasts = [part.firsts[-1] + part.actions.shape[1] * (np.diff(part.starts)[-1] - 1) for part in parts]
    frames = np.cumsum([0, *(last + 1 for last in lasts)])
    starts = [part.starts[:-1] + step for part, step in zip(parts, steps, strict=False)]
    firsts = [part.firsts + frame for part, frame in zip(parts, frames, strict=False)]
    return np.concatenate([*starts, steps[-1:]]), np.concatenate(firsts)


def _with_share(windows: NDArray[np.int64], chosen: NDArray[np.bool_], share: float) -> NDArray[np.int64]:
    """The windows, the chosen ones repeated until they make up a share of all."""
    if not chosen.any() or chosen.mean() >= share:
        return windows
    others = windows[~chosen] if share < 1 else windows[:0]
    count = round(share / (1 - share) * len(others)) if share < 1 else len(windows)
    return np.sort(np.concatenate([others, np.resize(windows[chosen], count)]))


class CodeClips(Dataset[dict[str, Tensor]]):
    """Every window of `length` latent steps inside a segment, as training samples of the prior.

    A sample holds codes (t, h, w) int64, actions (t - 1, s, a), rewards (t - 1,), terminated (t - 1,), and weights
    (t - 1,), with which each step of the episodes counts alike in rewards and terminations however many clips it is in:
    an episode's last step is in one clip where others are in dozens. Their mean over all clips is 1. Of clips that
    reach beyond an end it also holds (t - 1,) `there`: which steps the episode has. The others repeat the last codes
    and weigh nothing.

    Args:
        parts: the segments; they are never joined in memory, so that parts of files stay on disk.
        length: t.
        beyond: also clips that reach beyond the end of an episode that ended, of at least two of its steps. Inside of
            episodes an end comes at the end of a clip: who sees no other ends believes that none comes soon after the
            beginning, and so dreams.
        newest: share of the samples, at least, that come from the last quarter of all frames, whose steps then count
            more in rewards and terminations too.
        eventful: share of the samples, at least, in which an episode ends or a reward differs from the commonest one.
            In rewards and terminations each step goes on counting alike; the codes of such clips count more, so in a
            world of chance that which leads to them gets likelier in dreams.

    Raises:
        InputError: every segment is shorter.
    """

    def __init__(
        self,
        parts: Sequence[CodeArrays],
        length: int,
        *,
        beyond: bool = False,
        newest: float = 0.0,
        eventful: float = 0.0,
    ) -> None:
        self.parts, self.length = tuple(parts), length
        starts, firsts = _segments(parts)
        sizes = np.diff(starts)
        ended = np.concatenate([part.terminated for part in parts])[starts[1:] - 1] & beyond
        # Where a clip begins last: of episodes that ended, so that it holds the end and what came before.
        places = np.where(ended, sizes - 1, sizes - length + 1)
        fits = places > 0
        if not fits.any():
            raise InputError(
                f"no segment of {length} latent steps; the longest has {sizes.max()}. Record longer episodes or lower "
                "--prior.latent-steps"
            )
        if not fits.all():
            counts = f"{(~fits).sum()} of {len(sizes)} segments"
            logger.info("%s are shorter than a clip of %d latent steps: left out", counts, length)
        ranges = zip(starts[:-1][fits], places[fits], strict=True)
        self.windows = np.concatenate([np.arange(start, start + count) for start, count in ranges])
        self._ends = np.cumsum([len(part.codes) for part in parts])
        self._stops = np.minimum(np.arange(starts[-1]) + length, np.repeat(starts[1:], sizes))
        self._padded = bool((self._stops[self.windows] < self.windows + length).any())
        step = np.arange(starts[-1]) - np.repeat(starts[:-1], sizes)
        frame = np.repeat(firsts, sizes) + step * parts[0].actions.shape[1]
        fresh = frame >= _NEWEST * frame.max()
        once = fresh[self.windows]
        self.windows = _with_share(self.windows, once, newest)
        # Where no clip begins among the newest frames, none was repeated, and they count as all others.
        more = int(fresh[self.windows].sum()) / int(once.sum()) if once.any() else 1.0
        self.windows = _with_share(self.windows, self._eventful()[self.windows], eventful)
        self.weights = self._weights(frame, np.where(fresh, more, 1.0))

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        first = int(self.windows[index])
        number = int(np.searchsorted(self._ends, first, side="right"))
        part = self.parts[number]
        begin, count = first - int(self._ends[number]) + len(part.codes), int(self._stops[first]) - first
        following, missing = slice(begin + 1, begin + count), self.length - count
        codes = part.codes[begin : begin + count].astype(np.int64)
        arrays = {
            "codes": np.concatenate([codes, codes[-1:].repeat(missing, axis=0)]),
            "actions": _with_nothing(part.actions[following], missing),
            "rewards": _with_nothing(part.rewards[following], missing),
            "terminated": _with_nothing(part.terminated[following], missing),
            "weights": _with_nothing(self.weights[first + 1 : first + count], missing),
        }
        if self._padded:
            arrays["there"] = np.arange(1, self.length) < count
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _eventful(self) -> NDArray[np.bool_]:
        """(S,): whether something happens in the window that begins with a step."""
        rewards = np.concatenate([part.rewards for part in self.parts])
        values, counts = np.unique(rewards, return_counts=True)
        happens = (rewards != values[counts.argmax()]) | np.concatenate([part.terminated for part in self.parts])
        until = np.concatenate([[0], happens.cumsum()])
        return until[self._stops] > until[1:]

    def _weights(self, frame: NDArray[np.int64], importance: NDArray[np.float64]) -> NDArray[np.float32]:
        """(S,): `importance` (S,) over the number of clips that hold the step which ends with the same frame, (S,)
        `frame`.
        """
        # How many windows hold each step as one to predict: each adds one at its second step, and takes it away after
        # its last, so that the running sum counts them all without a loop over windows.
        in_windows = np.zeros(len(frame) + 1, np.int64)
        np.add.at(in_windows, self.windows + 1, 1)
        np.add.at(in_windows, self._stops[self.windows], -1)
        in_windows = in_windows.cumsum()[:-1]
        # Segments overlap: the same step of an episode is in several, so counts are per frame and not per latent step.
        counts = np.bincount(frame, weights=in_windows)[frame]
        seen = np.flatnonzero(in_windows)
        weights = np.zeros(len(in_windows), np.float32)
        weights[seen] = importance[seen] / counts[seen]
        # As often as a step is drawn: the mean over what training sees is 1, and the loss keeps its scale.
        drawn = len(self.windows) * (self.length - 1)
        return weights * (drawn / (weights * in_windows).sum()).astype(np.float32)


def _with_nothing(values: NDArray[Any], count: int) -> NDArray[Any]:
    """Values (t, ...), followed by as many zeros."""
    return np.concatenate([values, np.zeros((count, *values.shape[1:]), values.dtype)])
