"""The Fréchet distance against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vqvideo.evaluation.frame_sets import frechet_distance

SEEDS = st.integers(0, 2**31)
LENGTHS = st.integers(1, 6)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def gaussian(mean: Tensor, covariance: Tensor) -> Tensor:
    """A set of vectors with exactly this mean and covariance."""
    values, vectors = torch.linalg.eigh(covariance.double())
    n = len(mean) + 1
    centred = torch.linalg.qr(torch.cat([torch.ones(n, 1), torch.eye(n)[:, :-1]], dim=1).double()).Q[:, 1:]
    return mean.double() + (n - 1) ** 0.5 * centred @ (values.clamp(min=0).sqrt()[:, None] * vectors.T)


def covariance_of(d: int, seed: int) -> Tensor:
    root = normal(d, d, seed=seed)
    return root @ root.T


# ---------------------------------------------------------------- Gaussians


@settings(deadline=None)
@given(SEEDS, LENGTHS)
def test_with_diagonal_covariances_it_is_the_distance_of_means_and_standard_deviations(seed: int, d: int) -> None:
    m1, m2 = normal(2, d, seed=seed)
    s1, s2 = normal(2, d, seed=seed + 1).abs()
    found = frechet_distance(gaussian(m1, (s1**2).diag()), gaussian(m2, (s2**2).diag()))
    assert found == pytest.approx(((m1 - m2) ** 2 + (s1 - s2) ** 2).sum().item(), abs=1e-9)


@settings(deadline=None)
@given(SEEDS)
def test_in_two_dimensions_the_trace_of_the_root_has_a_closed_form(seed: int) -> None:
    """tr M^(1/2) = (tr M + 2 det(M)^(1/2))^(1/2) for a 2 x 2 matrix M with eigenvalues of at least 0."""
    zero = torch.zeros(2)
    c1, c2 = covariance_of(2, seed), covariance_of(2, seed + 1)
    product = c1 @ c2
    root = (product.trace() + 2 * torch.linalg.det(product).clamp(min=0).sqrt()).sqrt()
    expected = (c1.trace() + c2.trace() - 2 * root).item()
    assert frechet_distance(gaussian(zero, c1), gaussian(zero, c2)) == pytest.approx(expected, abs=1e-6)


# ---------------------------------------------------------------- sets of vectors


@settings(deadline=None)
@given(SEEDS, st.integers(2, 12), LENGTHS)
def test_equal_sets_are_exactly_0_apart_and_in_another_order_nearly(seed: int, n: int, d: int) -> None:
    features = normal(n, d, seed=seed).float()
    assert frechet_distance(features, features.clone()) == 0
    mixed = features[torch.randperm(n, generator=generator(seed))]
    assert 0 <= frechet_distance(features, mixed) < 1e-6


@settings(deadline=None)
@given(SEEDS, st.integers(2, 12), LENGTHS)
def test_it_is_symmetric_grows_with_a_shift_by_its_square_and_scales_with_the_square(seed: int, n: int, d: int) -> None:
    one, two = normal(n, d, seed=seed), normal(n + 3, d, seed=seed + 1)
    shift = normal(d, seed=seed + 2)
    found = frechet_distance(one, two)
    assert found == pytest.approx(frechet_distance(two, one), abs=1e-8)
    assert frechet_distance(one + shift, one) == pytest.approx((shift**2).sum().item(), abs=1e-6)
    assert frechet_distance(3 * one, 3 * two) == pytest.approx(9 * found, abs=1e-6)


@settings(deadline=None)
@given(SEEDS, st.integers(2, 6), st.integers(2, 6))
def test_dimensions_that_do_not_vary_add_nothing_however_few_the_vectors(seed: int, n: int, d: int) -> None:
    one, two = normal(n, d, seed=seed), normal(n + 1, d, seed=seed + 1)
    wide = [torch.nn.functional.pad(x, (0, 20), value=0.7) for x in (one, two)]
    found = frechet_distance(gaussian(one.mean(dim=0), one.T.cov()), gaussian(two.mean(dim=0), two.T.cov()))
    assert frechet_distance(*wide) == pytest.approx(found, abs=1e-6)


def test_the_distance_of_many_draws_is_that_of_their_distributions() -> None:
    m1, m2, c1, c2 = normal(4, seed=0), normal(4, seed=1), covariance_of(4, 2), covariance_of(4, 3)
    draws = [normal(200_000, 4, seed=5) @ torch.linalg.cholesky(c).T + m for m, c in ((m1, c1), (m2, c2))]
    assert frechet_distance(*draws) == pytest.approx(frechet_distance(gaussian(m1, c1), gaussian(m2, c2)), rel=0.02)


@pytest.mark.parametrize("count", [0, 1])
def test_sets_without_a_covariance_have_no_distance(count: int) -> None:
    assert math.isnan(frechet_distance(torch.zeros(count, 4), torch.zeros(9, 4)))
