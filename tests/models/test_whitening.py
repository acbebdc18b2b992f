"""Whitening: the latents of FSQ, LFQ and BSQ stay centred, uncorrelated and of unit size."""

from __future__ import annotations

import pytest
import torch
from tiny_tokenizers import latents, observe
from torch import Tensor

from vqvideo.models.quantizers import BSQConfig, CodeUsage, FSQConfig, LFQConfig
from vqvideo.models.quantizers.whitening import Whitening

FIXED = {
    "fsq": FSQConfig((5, 5, 5, 5)),
    "fsq_of_twos": FSQConfig((2, 2, 2, 2)),
    "lfq": LFQConfig(4),
    "bsq": BSQConfig(4),
}
each_fixed = pytest.mark.parametrize("config", FIXED.values(), ids=FIXED)


def skewed(count: int = 4000, seed: int = 0, shift: float = 3.0, scale: float = 0.05) -> Tensor:
    """Latents (n, 4) far from the origin, small, and each leaning on the one before."""
    z = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return shift + scale * z.cumsum(dim=1) * torch.tensor([1.0, 3.0, 0.3, 1.0])


def test_whitened_latents_have_mean_zero_and_the_identity_as_covariance() -> None:
    whitening = Whitening(torch.zeros(4))
    whitening.fit(skewed())
    white = whitening(skewed())
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(white.T @ white / len(white), torch.eye(4), atol=1e-2, rtol=0)


def test_latents_that_are_white_are_left_as_they_are() -> None:
    """The symmetric root: not any rotation of them."""
    whitening = Whitening(torch.zeros(4))
    z = torch.randn(100_000, 4, generator=torch.Generator().manual_seed(0))
    whitening.fit(z)
    assert (whitening(z) - z).abs().max() < 0.1


def test_it_follows_latents_that_drift_and_only_after_it_was_fitted() -> None:
    fitted, unfitted = Whitening(torch.zeros(4), decay=0.8), Whitening(torch.zeros(4), decay=0.8)
    fitted.fit(skewed())
    for step in range(40):
        for whitening in (fitted, unfitted):
            whitening.observe(skewed(500, seed=step, shift=2, scale=0.4))
            whitening.update()
    white = fitted(skewed(shift=2, scale=0.4))
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(4), atol=0.15, rtol=0)
    torch.testing.assert_close(white.T @ white / len(white), torch.eye(4), atol=0.15, rtol=0)
    assert torch.equal(unfitted(skewed()), skewed())


def test_micro_batches_are_one_large_batch() -> None:
    one, two = Whitening(torch.zeros(4)), Whitening(torch.zeros(4))
    for whitening in (one, two):
        whitening.fit(skewed())
    z = skewed(300, seed=1, shift=2.9)
    one.observe(z)
    two.observe(z[:100])
    two.observe(z[100:])
    one.update()
    two.update()
    torch.testing.assert_close(one.map, two.map, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.mean, two.mean)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_latents_without_spread_do_not_explode(rank: int) -> None:
    whitening = Whitening(torch.zeros(4))
    z = torch.randn(100, rank) @ torch.ones(rank, 4) + 5
    whitening.fit(z)
    assert whitening(z).isfinite().all()
    assert whitening(z).abs().max() < 1000


@each_fixed
def test_levels_and_bits_are_used_evenly_from_the_start_and_after_a_drift(config: FSQConfig) -> None:
    used = {}
    for whiten in (False, True):
        quantizer = type(config)(**{**vars(config), "whiten": whiten}).build().train()
        quantizer.initialize(skewed())
        start = quantizer.encode(skewed()).unique().numel()
        for step in range(100):
            observe(quantizer, skewed(500, seed=step, shift=3 - 0.01 * min(step, 50)))
            quantizer.update()
        used[whiten] = (start, quantizer.encode(skewed(shift=2.5)).unique().numel())
    k = quantizer.codebook_size
    assert max(used[False]) < 0.2 * k
    assert min(used[True]) > (0.4 if k > 100 else 0.9) * k


@pytest.mark.parametrize("levels", [(2,) * 8, (2, 3, 4), (8, 2)], ids=str)
def test_all_codes_are_reached_by_normal_latents_whatever_the_levels(levels: tuple[int, ...]) -> None:
    quantizer = FSQConfig(levels).build().train()
    z = 5 + 0.3 * latents(quantizer, 8192)
    quantizer.initialize(z)
    assert quantizer.encode(z).unique().numel() == quantizer.codebook_size
    for step in range(30):
        observe(quantizer, 5.5 + 0.6 * latents(quantizer, 1024, seed=step))
        quantizer.update()
    bits = CodeUsage(quantizer.codebook_size)
    bits.add(quantizer.encode(5.5 + 0.6 * latents(quantizer, 8192, seed=99)))
    assert bits.summary()["effective_bits"] > 0.95 * quantizer.bits


@each_fixed
def test_as_published_nothing_is_whitened(config: FSQConfig) -> None:
    plain = type(config)(**{**vars(config), "whiten": False}).build().train()
    fresh = type(config)(**vars(config)).build()
    plain.initialize(skewed())
    observe(plain, skewed())
    plain.update()
    z = torch.randn(500, 4, generator=torch.Generator().manual_seed(5))
    assert torch.equal(plain.encode(z), fresh.encode(z))
