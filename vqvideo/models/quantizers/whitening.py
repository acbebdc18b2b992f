"""Latents as the quantizers without a codebook want them: centred, uncorrelated and of unit size.

A codebook moves to where the latents are; levels and bits stand still, so the latents have to be brought to them.
Doing so once, at the start, is worse than not at all: the encoder is away from there within some tens of steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqvideo.models.quantizers.base import Quantizer
from vqvideo.models.quantizers.ranks import broadcast_from_first, sum_over_ranks

_FLATTEST = 1e-4
"""Smallest variance of a direction that is still blown up to unit size, as a share of the largest."""


class Whitening(nn.Module):
    """(..., d) -> (..., d): z to C^(-1/2) (z - m), with m and C moving averages of mean and covariance of the latents.

    The identity until `fit`. The symmetric root turns the latents as little as possible, so that it changes smoothly
    with C. Statistics are summed over ranks before they are averaged.
    """

    mean: Tensor
    covariance: Tensor
    map: Tensor
    fitted: Tensor
    _count: Tensor
    _sum: Tensor
    _outer: Tensor

    def __init__(self, dim: int, decay: float = 0.95) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("covariance", torch.eye(dim))
        self.register_buffer("map", torch.eye(dim))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.register_buffer("_count", torch.zeros(()), persistent=False)
        self.register_buffer("_sum", torch.zeros(dim), persistent=False)
        self.register_buffer("_outer", torch.zeros(dim, dim), persistent=False)
        self._observed = False

    def forward(self, z: Tensor) -> Tensor:
        return (z - self.mean) @ self.map

    @torch.no_grad()
    def fit(self, z: Tensor) -> None:
        """Takes mean and covariance of latents (n, d). Every rank must pass the same ones; those of rank 0 decide."""
        z = broadcast_from_first(z.float().contiguous())
        self.mean.copy_(z.mean(dim=0))
        self.covariance.copy_((z - self.mean).T @ (z - self.mean) / len(z))
        self.fitted.fill_(True)
        self._refresh()

    @torch.no_grad()
    def observe(self, z: Tensor) -> None:
        """Gathers the statistics of latents (..., d) for the next `update`."""
        # Around the mean so far: raw second moments would lose the variance of latents far from the origin.
        centred = z.detach().reshape(-1, len(self.mean)) - self.mean
        self._count += len(centred)
        self._sum += centred.sum(dim=0)
        self._outer += centred.T @ centred
        self._observed = True

    @torch.no_grad()
    def update(self) -> None:
        """Moves the averages by what was observed since the last call. Collective."""
        if not (self._observed and self.fitted):
            return
        sum_over_ranks(self._count, self._sum, self._outer)
        shift = self._sum / self._count
        # Around the mean so far, not the batch's own: while the latents move as a whole, that counts as spread and
        # keeps them inside the levels.
        self.covariance.lerp_(self._outer / self._count, 1 - self.decay)
        self.mean += (1 - self.decay) * shift
        for tensor in (self._count, self._sum, self._outer):
            tensor.zero_()
        self._observed = False
        self._refresh()

    def _refresh(self) -> None:
        size, directions = torch.linalg.eigh(self.covariance.double().cpu())
        size = size.clamp(min=max(_FLATTEST * float(size.max()), 1e-8))
        root = directions @ torch.diag(size.rsqrt()) @ directions.T
        # Ranks on different processors may differ in the last bit of it.
        self.map.copy_(broadcast_from_first(root.to(self.map)))


class WhitenedQuantizer(Quantizer):
    """A quantizer without a codebook, behind a `Whitening` of its latents."""

    def __init__(self, dim: int, *, whiten: bool) -> None:
        super().__init__()
        self.dim, self.whiten = dim, whiten
        self.whitening = Whitening(dim)

    @property
    def latents_to_start(self) -> int:
        return 64 * self.dim

    @torch.no_grad()
    def initialize(self, z: Tensor) -> None:
        """Fits the whitening to first latents (n, d), the same on every rank."""
        if self.whiten:
            self.whitening.fit(z)

    @torch.no_grad()
    def update(self) -> None:
        self.whitening.update()

    def observed(self, z: Tensor) -> Tensor:
        """The whitened fp32 latents of a forward pass."""
        z = z.float()
        if self.learns_from(z):
            self.whitening.observe(z)
        return self.whitening(z)
