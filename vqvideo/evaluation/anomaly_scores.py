"""Scores that tell how anomalous each latent step of a stream is: a world's own, alone and together, and baselines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vqvideo.evaluation.anomaly import SIGNALS, Calibration, signals
from vqvideo.evaluation.conformal import threshold
from vqvideo.evaluation.frame_sets import lite0_features
from vqvideo.models.pixels import channels_first
from vqvideo.models.surprise import Watch
from vqvideo.models.tokenizer.features import Lite0Features

Array = NDArray[np.float64]
_SIDE = 64
"""Pixels a side at which the network sees frames, at least: larger ones take longer than all else."""


class Evidence(NamedTuple):
    """What scores are made of, for n latent steps of a stream."""

    signals: Array
    """(n, S): those of `vqvideo.evaluation.anomaly`."""
    change: Array
    """(n,): logarithm of the mean squared difference of frames to those before them, of 0 .. 255."""
    features: Array
    """(n, d): EfficientNet-Lite0's of the last frame of each step; d is 0 without it."""

    def followed_by(self, later: Evidence) -> Evidence:
        """One stream of both."""
        return Evidence(*(np.concatenate(pair) for pair in zip(self, later, strict=True)))


def gathered(
    watch: Watch, frames: NDArray[np.uint8], actions: torch.Tensor, net: Lite0Features | None
) -> list[Evidence]:
    """What streams show as they go on.

    Args:
        watch: has seen them up to their first frame here.
        frames: (b, 1 + s n, h, w, 3) uint8.
        actions: (b, s n, a) between them, checked.
        net: for the features; None for none.
    """
    s = watch.vqvae.stride
    shown = channels_first(torch.from_numpy(frames[:, 1:]))
    pairs = zip(shown.split(s, dim=1), actions.split(s, dim=1), strict=True)
    seen = np.stack([signals(watch.step(part, acting)) for part, acting in pairs], axis=1)
    moved = np.square(np.diff(frames.astype(np.float32), axis=1)).mean(axis=(2, 3, 4), dtype=np.float64)
    change = np.log(moved.reshape(len(frames), -1, s).mean(axis=2) + 1e-3)
    last = shown[:, s - 1 :: s]
    features = np.zeros((*change.shape, 0))
    if net is not None:
        features = lite0_features(net, last.flatten(0, 1), _SIDE).double().numpy().reshape(*change.shape, -1)
    return [Evidence(*parts) for parts in zip(seen, change, features, strict=True)]


class Score(ABC):
    """Larger is more anomalous. None of them looks at later steps, or at a whole stream to scale its scores."""

    name: str

    def fit(self, normal: Sequence[Evidence], rate: float) -> float:
        """Learns what is normal from episodes; the threshold for a share `rate` of false alarms a step. What is learnt
        is learnt from one half of them, and the threshold comes from the other.
        """
        self.learn(normal[::2])
        return threshold(np.concatenate([self.of(episode) for episode in normal[1::2]]), rate)

    def learn(self, normal: Sequence[Evidence]) -> None:  # noqa: B027  most learn nothing
        """Nothing by default."""

    @abstractmethod
    def of(self, evidence: Evidence) -> Array:
        """(n,) of n steps."""


class Together(Score):
    """All signals of the world, as `scripts/anomaly.py` puts them together."""

    name = "together"

    def fit(self, normal: Sequence[Evidence], rate: float) -> float:
        self.calibration = Calibration.of([episode.signals for episode in normal], rate)
        return self.calibration.threshold

    def of(self, evidence: Evidence) -> Array:
        return self.calibration.scores(evidence.signals)


class Alone(Score):
    """One signal of the world."""

    def __init__(self, signal: str) -> None:
        self.name, self.column = signal, SIGNALS.index(signal)

    def of(self, evidence: Evidence) -> Array:
        return evidence.signals[:, self.column]


class FrameDifference(Score):
    """How unusually much or little frames differ from those before: what stands still is unusual, too."""

    name = "last frame"

    def learn(self, normal: Sequence[Evidence]) -> None:
        change = np.concatenate([episode.change for episode in normal])
        self.mean, self.spread = change.mean(), change.std() + 1e-12

    def of(self, evidence: Evidence) -> Array:
        return np.abs(evidence.change - self.mean) / self.spread


class NearestNeighbour(Score):
    """Distance of a frame's features to the nearest ones of normal frames."""

    name = "nearest neighbour"

    def learn(self, normal: Sequence[Evidence]) -> None:
        self.bank = torch.from_numpy(np.concatenate([episode.features for episode in normal]))

    def of(self, evidence: Evidence) -> Array:
        return torch.cdist(torch.from_numpy(evidence.features), self.bank).amin(dim=1).numpy()


class Chance(Score):
    """Drawn at random."""

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def of(self, evidence: Evidence) -> Array:
        return self.rng.random(len(evidence.change))


def scores_for(evidence: Evidence) -> list[Score]:
    """All scores that there is evidence for."""
    own = [Together(), *map(Alone, SIGNALS[: evidence.signals.shape[1]])]
    neighbour = [NearestNeighbour()] if evidence.features.shape[1] else []
    return [*own, FrameDifference(), *neighbour, Chance()]
