"""The Fréchet distance between sets of feature vectors, each taken for a Gaussian."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vqvideo.errors import InputError


class Gaussian(NamedTuple):
    """Mean and covariance, both float64."""

    mean: Tensor
    """(d,)."""
    factor: Tensor
    """(r, d): the covariance is factor^T factor. Fewer than d vectors have a small factor, and no d x d matrix is ever
    made."""


def fit_gaussian(features: Tensor) -> Gaussian:
    """Mean and unbiased covariance of vectors (n, d), n >= 2."""
    if features.ndim != 2 or len(features) < 2:
        raise InputError(f"features of shape {tuple(features.shape)}, expected (n, d) with n >= 2")
    x = features.double()
    mean = x.mean(dim=0)
    centred = (x - mean) / (len(x) - 1) ** 0.5
    few = len(x) <= x.shape[1]
    return Gaussian(mean, centred if few else torch.linalg.qr(centred, mode="r").R)


def frechet_distance(one: Gaussian, two: Gaussian) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians; exactly 0 for equal ones.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)): Dowson and Landau 1982, "The Fréchet distance between multivariate
    normal distributions", eq. 4; Heusel et al. 2017, arXiv:1706.08500, eq. 6.

    With C1 = A^T A and C2 = B^T B, the product C1 C2 has the same eigenvalues (but for zeros) as the symmetric
    (A B^T) (A B^T)^T. Their roots are the singular values of A B^T, so the trace of the root is the sum of these: real
    whatever the rank, and without squaring what is rooted again.
    """
    if torch.equal(one.mean, two.mean) and torch.equal(one.factor, two.factor):
        return 0.0
    moved = (one.mean - two.mean).square().sum()
    spread = one.factor.square().sum() + two.factor.square().sum()
    common = torch.linalg.svdvals(one.factor @ two.factor.T).sum()
    # Rounding alone could make it negative.
    return (moved + spread - 2 * common).clamp(min=0).item()
