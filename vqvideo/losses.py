"""Training losses as pure functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def reconstruction_loss(predicted: Tensor, target: Tensor, variance: Tensor, l1_weight: float) -> Tensor:
    """MSE / variance + l1_weight * L1 / standard deviation, a mean over all elements (scalar).

    Dividing by the variance of the data makes one commitment weight fit dark and bright worlds alike
    (van den Oord et al. 2017: the right beta depends on the scale of the reconstruction loss).

    Args:
        predicted, target: same shape, in the units of `variance` ** 0.5.
        variance: scalar, variance of the training frames.
        l1_weight: weight of the absolute error; 0 leaves it out.
    """
    loss = F.mse_loss(predicted, target) / variance
    if l1_weight:
        loss = loss + l1_weight * F.l1_loss(predicted, target) / variance.sqrt()
    return loss


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|) (Hafner et al. 2023, arXiv:2301.04104, eq. 9)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """The inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


def two_hot(x: Tensor, bins: Tensor) -> Tensor:
    """Weights (..., bins) on the two sorted bins next to x (...), summing to 1 (arXiv:2301.04104, eq. 10)."""
    x = x.clamp(bins[0], bins[-1])
    upper = torch.searchsorted(bins, x.contiguous()).clamp(1, len(bins) - 1)
    low, high = bins[upper - 1], bins[upper]
    share = (x - low) / (high - low)
    weights = x.new_zeros(*x.shape, len(bins))
    weights.scatter_(-1, upper[..., None], share[..., None])
    return weights.scatter_(-1, upper[..., None] - 1, 1 - share[..., None])
