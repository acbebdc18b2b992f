"""A perceptual distance: how far apart frames are in the features of a frozen network. Off by default.

The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (Zhang et al. 2018, arXiv:1801.03924), without
the linear heads that the paper fits to human judgements: all channels of a stage count alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from einops import rearrange
from torch import Tensor, nn

from vqvideo.models.tokenizer.features import FeatureNet, resized
from vqvideo.models.tokenizer.losses import TermOutput

_SMOOTH = 1e-2
"""Length below which a feature vector counts as short: where all channels are silent, a plain division by the length
would send back a gradient without bound."""


class PerceptualTerm(nn.Module):
    """The weighted perceptual distance of a random part of the frames.

    The network moves with `.to(device)`, but is no submodule: it has no place in the state dict, in checkpoints, in
    averaged weights, or among what data-parallel training synchronises.
    """

    def __init__(self, net: FeatureNet, weight: float, frames_per_step: int, side: int) -> None:
        super().__init__()
        self.weight, self.frames_per_step, self.side = weight, frames_per_step, side
        self._hidden = (net.to(memory_format=torch.channels_last),)

    @property
    def net(self) -> FeatureNet:
        """The frozen network."""
        return self._hidden[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.net._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, reconstruction: Tensor, target: Tensor) -> TermOutput:
        """Clips (b, t, 3, h, w) in -1 .. 1. Which frames count is drawn from torch's generator, which the training loop
        seeds for each step and rank.
        """
        frames, wanted = (rearrange(clips, "b t c h w -> (b t) c h w") for clips in (reconstruction, target))
        pick = torch.randperm(len(frames), device=frames.device)[: self.frames_per_step]
        distance = self.distance(frames[pick], wanted[pick]).mean()
        return TermOutput(self.weight * distance, {"perceptual": distance.detach()})

    def distance(self, frames: Tensor, wanted: Tensor) -> Tensor:
        """Distances (n,) between frames (n, 3, h, w) in -1 .. 1: the squared difference of feature vectors of length 1,
        a mean over positions and stages (Zhang et al. 2018, eq. 1, with all weights one). Between 0 and 4.
        """
        with torch.no_grad():
            there = [unit_features(x) for x in self.net.stages(self._shown(wanted))]
        here = [unit_features(x) for x in self.net.stages(self._shown(frames))]
        parts = [(a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in zip(here, there, strict=True)]
        return torch.stack(parts).mean(dim=0)

    def _shown(self, frames: Tensor) -> Tensor:
        # Channels last: a quarter less time on CPUs.
        shown = resized(frames, self.side, self.net.multiple)
        return shown.contiguous(memory_format=torch.channels_last)


def unit_features(x: Tensor) -> Tensor:
    """(n, c, h, w) with each position's vector at length 1, or shorter where there is next to nothing; fp32."""
    x = x.float()
    return x * (x.square().sum(dim=1, keepdim=True) + _SMOOTH**2).rsqrt()
