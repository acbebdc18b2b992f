"""Is something wrong in a stream? Scores of its latent steps, against those of episodes that are known to be normal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vqvideo.errors import InputError
from vqvideo.evaluation.conformal import threshold
from vqvideo.models.imagination import Imaginer
from vqvideo.models.surprise import Surprise, Watch

Frames = NDArray[np.uint8]
SIGNALS = ("nats", "error")
"""What a score is made of: means over the tokens of a step."""


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
        """(2,): those of `SIGNALS`."""
        return np.array([float(getattr(self.surprise, name).double().mean()) for name in SIGNALS])

    @property
    def obeys(self) -> float | None:
        """Nats per token that knowing the action is worth; None where the prior cannot do without."""
        blind = self.surprise.blind
        return None if blind is None else float((blind - self.surprise.nats).double().mean())


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
    """What is normal: how scores are put together, and from where on they are an alarm."""

    mean: NDArray[np.float64]
    """(2,) of the signals."""
    spread: NDArray[np.float64]
    """(2,): their standard deviations."""
    threshold: float
    """Of the score."""
    steps: int
    """Normal ones."""

    @classmethod
    def of(cls, normal: NDArray[np.float64], rate: float) -> Calibration:
        """By the signals (n, 2) of normal steps, for a share `rate` of false alarms.

        One half of the steps says how the signals are put together, the other one where the threshold is: a score must
        not be judged by what it was made of.

        Raises:
            InputError: too few steps.
        """
        making, judging = normal[::2], normal[1::2]
        if len(judging) < 2:
            raise InputError(f"{len(normal)} normal steps, expected many more")
        mean, spread = making.mean(axis=0), making.std(axis=0) + 1e-12
        bare = cls(mean, spread, 0.0, len(normal))
        return cls(mean, spread, threshold(bare.scores(judging), rate), len(normal))

    def scores(self, signals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of signals (n, 2): the sum of how many standard deviations each is above its mean, (n,)."""
        return ((signals - self.mean) / self.spread).sum(axis=-1)
