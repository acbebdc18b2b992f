"""The Fréchet distance between sets of feature vectors, each taken for a Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor


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
