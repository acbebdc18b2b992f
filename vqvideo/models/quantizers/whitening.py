"""Latents as the quantizers without a codebook want them: centred, uncorrelated and of unit size.

A codebook moves to where the latents are; levels and bits stand still, so the latents have to be brought to them.
Doing so once, at the start, is worse than not at all: the encoder is away from there within some tens of steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqvideo.models.device import has_float64
from vqvideo.models.precision import single
from vqvideo.models.quantizers.base import Quantizer
from vqvideo.models.quantizers.ranks import broadcast_from_first, sum_over_ranks

_FLATTEST = 1e-5
"""Variance that is added in every direction, as a share of the size of the covariance: what is flatter still is not
blown up to unit size.
"""
_ROUNDS = 24
"""Of the iteration for a root: a variance that is a millionth of the largest takes 22."""


class Whitening(nn.Module):
    """(..., d) -> (..., d): z to C^(-1/2) (z - m) + c, with m and C moving averages of mean and covariance of the
    latents.

    The identity until `fit`. The symmetric root turns the latents as little as possible, so that it changes smoothly
    with C. Statistics are summed over ranks before they are averaged.

    Args:
        centre: c (d,), where the middle of the latents comes to lie.
        decay: of the moving averages, per update.
    """

    mean: Tensor
    covariance: Tensor
    map: Tensor
    fitted: Tensor
    centre: Tensor
    _count: Tensor
    _sum: Tensor
    _outer: Tensor

    def __init__(self, centre: Tensor, decay: float = 0.95) -> None:
        super().__init__()
        self.decay, dim = decay, len(centre)
        # What is mapped to the origin: the mean of the latents where c is 0.
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("covariance", torch.eye(dim))
        self.register_buffer("map", torch.eye(dim))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("_count", torch.zeros(()), persistent=False)
        self.register_buffer("_sum", torch.zeros(dim), persistent=False)
        self.register_buffer("_outer", torch.zeros(dim, dim), persistent=False)
        self._observed = False

    def forward(self, z: Tensor) -> Tensor:
        return (z - self.mean) @ self.map

    @torch.no_grad()
    def fit(self, z: Tensor) -> None:
        """Takes mean and covariance of latents (n, d). Every rank must pass the same ones; those of rank 0 decide."""
        z = broadcast_from_first(single(z).contiguous())
        mean = z.mean(dim=0)
        self.covariance.copy_((z - mean).T @ (z - mean) / len(z))
        self.fitted.fill_(True)
        self._place(mean)

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
        """Moves the averages by what was observed since the last call; nothing until `fit`. Collective."""
        if not self._observed:
            return
        sum_over_ranks(self._count, self._sum, self._outer)
        # Whether it was fitted is on the device, and it is not worth waiting for: unfitted, nothing moves.
        step = (1 - self.decay) * self.fitted
        offset, seen = self._offset(), self._sum / self._count
        # Around the mean so far, not the batch's own: while the latents move as a whole, that counts as spread and
        # keeps them inside the levels.
        apart = torch.outer(seen, offset)
        spread = self._outer / self._count - apart - apart.T + torch.outer(offset, offset)
        mean = self.mean + offset + step * (seen - offset)
        self.covariance.lerp_(spread, step)
        for tensor in (self._count, self._sum, self._outer):
            tensor.zero_()
        self._observed = False
        self._place(mean)

    def _place(self, mean: Tensor) -> None:
        """Maps the mean of the latents to the centre, and their covariance to the identity."""
        root = torch.where(self.fitted, inverse_root(self.covariance).to(self.map), self.map)
        # Ranks on different processors may differ in the last bit of it.
        self.map.copy_(broadcast_from_first(root))
        self.mean.copy_(torch.where(self.fitted, mean - self._offset(), self.mean))

    def _offset(self) -> Tensor:
        """From the latent that is mapped to the origin to the mean: C^(1/2) c."""
        return self.covariance @ (self.map @ self.centre)


def inverse_root(covariance: Tensor) -> Tensor:
    """C^(-1/2) of a covariance (d, d) with a little variance added in every direction, in double precision.

    By the coupled Newton-Schulz iteration (Higham 2008, "Functions of Matrices", eq. 6.35), which takes products alone:
    a GPU's solver for eigenvalues would be waited for in every step. On the CPU where the device has no float64.
    """
    if not has_float64(covariance.device):
        return inverse_root(covariance.cpu())
    size = covariance.double().norm().clamp(min=1e-3)
    one = torch.eye(len(covariance), dtype=torch.float64, device=covariance.device)
    # At most 1 in every direction, so that the iteration converges.
    y, z = (covariance.double() / size + _FLATTEST * one) / (1 + _FLATTEST), one
    size = size * (1 + _FLATTEST)
    for _ in range(_ROUNDS):
        step = 1.5 * one - 0.5 * z @ y
        y, z = y @ step, step @ z
    return z / size.sqrt()


class WhitenedQuantizer(Quantizer):
    """A quantizer without a codebook, behind a `Whitening` of its latents."""

    def __init__(self, centre: Tensor, *, whiten: bool) -> None:
        """`centre`: (d,), where the middle of the whitened latents lies."""
        super().__init__()
        self.dim, self.whiten = len(centre), whiten
        self.whitening = Whitening(centre)

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
        """The whitened latents of a forward pass."""
        z = single(z)
        if self.whiten and self.learns_from(z):
            self.whitening.observe(z)
        return self.whitening(z)
