"""What narrower weights cost, measured on real clips."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vqvideo.export.weights import Weights, rounded
from vqvideo.models.imagination import Imaginer

_BATCH = 8
"""Clips at once."""


class Fit(NamedTuple):
    """How well a world explains real clips."""

    nats: float
    """Per token, of the codes of the world with full weights, given the steps before and the actions."""
    decibel: float
    """PSNR of what the tokenizer makes of the frames, by their mean squared error."""


class Costs(NamedTuple):
    """Full weights beside narrower ones."""

    full: Fit
    narrow: Fit
    weights: str
    clips: int

    def __str__(self) -> str:
        rows = [("fp32", self.full), (self.weights, self.narrow)]
        lines = [f"{name:8s} {fit.nats:14.4f} {fit.decibel:8.3f}" for name, fit in rows]
        more, lost = self.narrow.nats / self.full.nats - 1, self.full.decibel - self.narrow.decibel
        return "\n".join(
            (
                f"weights  nats per token     dB   on {self.clips} start clips",
                *lines,
                f"{self.weights} costs {more:+.2%} nats and {lost:.3f} dB",
            )
        )


@torch.no_grad()
def costs(world: Imaginer, weights: Weights, frames: Tensor, actions: Tensor) -> Costs:
    """Measures weights on clips: frames (r, 1 + s c, 3, h, w) and the flat actions (r, s c, a) between them."""
    codes = torch.cat([world.vqvae.encode(part) for part in frames.split(_BATCH)])
    full, narrow = (_fit(each, codes, frames, actions) for each in (world, rounded(world, weights)))
    return Costs(full, narrow, weights, len(frames))


def _fit(world: Imaginer, codes: Tensor, frames: Tensor, actions: Tensor) -> Fit:
    nats, errors = [], []
    grouped = actions.unflatten(1, (-1, world.stride))
    # A head that hides tokens at random estimates its likelihood: the same tokens for all weights.
    generator = torch.Generator().manual_seed(0)
    for part, clip, acting in zip(*(each.split(_BATCH) for each in (codes, frames, grouped)), strict=True):
        nats.append(world.prior.likelihood(part, acting, generator).nats.flatten())
        shown = world.vqvae.decode(world.vqvae.encode(clip)) * 255
        errors.append((shown - clip.float()).square().mean(dim=(1, 2, 3, 4)))
    return Fit(
        float(torch.cat(nats).mean()) / world.prior.spec.tokens,
        10 * math.log10(255**2 / max(float(torch.cat(errors).mean()), 1e-9)),
    )
