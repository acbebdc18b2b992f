"""Is something wrong in a stream? Scores of its latent steps, against those of episodes that are known to be normal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vqvideo.errors import InputError
from vqvideo.evaluation.conformal import threshold
from vqvideo.models.imagination import Imaginer
from vqvideo.models.surprise import Surprise, Watch

Frames = NDArray[np.uint8]
SIGNALS = ("nats", "nats of the worst", "error", "distance", "disobedience")
"""What a score is made of, of each latent step: nats per token, and those of the eighth of the tokens that surprise
most; the logarithms of the squared error and of the distance to the code; and how much better the prior does without
the action than with it, where it can do without.
"""
_WORST = 8
_MEMORY = 4
"""Latent steps of the running means that a score looks at beside each step: what is mild but lasts shows in them."""


def signals(surprise: Surprise) -> NDArray[np.float64]:
    """Those of `SIGNALS` of (..., h, w): (..., 5), or (..., 4) of a prior that cannot do without actions."""
    nats, error, distance = (value.double().flatten(-2) for value in surprise[:3])
    worst = nats.topk(max(1, nats.shape[-1] // _WORST), dim=-1).values
    found = [nats.mean(dim=-1), worst.mean(dim=-1), *((v.mean(dim=-1) + 1e-12).log() for v in (error, distance))]
    if surprise.blind is not None:
        found.append((nats - surprise.blind.double().flatten(-2)).mean(dim=-1))
    return torch.stack(found, dim=-1).cpu().numpy()


@dataclass(frozen=True, eq=False)
class Seen:
    """A latent step of a stream."""

    frame: int
    """Number of its last frame."""
    surprise: Surprise
    """(1, h, w) each."""
    frames: Frames
    """(s, h, w, 3)."""

    @property
    def signals(self) -> NDArray[np.float64]:
        """Those of `SIGNALS`, (5,) or (4,)."""
        return signals(self.surprise)[0]


def watched(world: Imaginer, frames: Iterable[Frames], actions: NDArray[np.float64] | None) -> Iterator[Seen]:
    """The latent steps of a film (h, w, 3) uint8 as its frames come; what is left at its end fills no step.

    Raises:
        InputError: no frames, frames of another size, or missing or wrong actions.
    """
    coming = iter(frames)
    first = next(coming, None)
    if first is None:
        raise InputError("no frames to watch")
    if world.action_space.size and actions is None:
        raise InputError(f"this world has actions ({world.action_space}), the film none: watch an episode of a store")
    watch, number, block = Watch(world.vqvae, world.prior, _tensor(world, first[None])), 0, list[Frames]()
    for number, frame in enumerate(coming, 1):
        block.append(frame)
        if len(block) == world.stride:
            begin = number - world.stride
            acting = np.zeros((world.stride, 0)) if actions is None else actions[begin:number]
            pixels = np.stack(block)
            yield Seen(number, watch.step(_tensor(world, pixels), world.checked_actions(acting[None])), pixels)
            block = []


def _tensor(world: Imaginer, frames: Frames) -> torch.Tensor:
    return world.vqvae.checked(torch.from_numpy(frames).movedim(-1, 1)[None])


@dataclass(frozen=True, eq=False)
class Calibration:
    """What is normal: how signals become a score, and from where on it is an alarm."""

    mean: NDArray[np.float64]
    """(2 S,) of the S signals and of their running means."""
    spread: NDArray[np.float64]
    """(2 S,): their standard deviations."""
    threshold: float
    """Of the score."""
    steps: int
    """Normal ones."""

    @classmethod
    def of(cls, normal: Sequence[NDArray[np.float64]], rate: float) -> Calibration:
        """By the signals (n, S) of normal episodes, for a share `rate` of false alarms.

        One half of the steps says how the signals are put together, the other one where the threshold is: a score must
        not be judged by what it was made of.

        Raises:
            InputError: too few steps.
        """
        known = np.concatenate([_with_means(episode) for episode in normal]) if normal else np.zeros((0, 2))
        making, judging = known[::2], known[1::2]
        if len(judging) < 2:
            raise InputError(f"{len(known)} normal steps, expected many more")
        mean, spread = making.mean(axis=0), making.std(axis=0) + 1e-12
        found = ((judging - mean) / spread).max(axis=1)
        return cls(mean, spread, threshold(found, rate), len(known))

    def scores(self, signals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the signals (n, S) of an episode, step by step from its beginning: by how many standard deviations the
        most unusual one of a step, or of the steps up to it, is above its mean, (n,).
        """
        return ((_with_means(signals) - self.mean) / self.spread).max(axis=1)


def _with_means(signals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signals (n, S) and beside them their means over the steps up to each, (n, 2 S)."""
    total = np.cumsum(np.pad(signals, ((1, 0), (0, 0))), axis=0)
    ends = np.arange(1, len(signals) + 1)
    begins = np.maximum(ends - _MEMORY, 0)
    return np.concatenate([signals, (total[ends] - total[begins]) / (ends - begins)[:, None]], axis=1)
