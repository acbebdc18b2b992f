"""The cross-entropy that never holds all logits is torch's own, in value and in gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqvideo.models.prior import cross_entropy
from vqvideo.models.prior.cross_entropy import linear_cross_entropy


def problem(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x (3, 7, 8), weight (11, 8), codes and shares (3, 7)."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=generator).to(dtype) for shape in ((3, 7, 8), (11, 8)))
    share = torch.rand(3, 7, generator=generator) * (torch.rand(3, 7, generator=generator) > 0.3)
    codes = torch.randint(11, (3, 7), generator=generator)
    codes[0] = (x @ weight.T).argmax(dim=-1)[0]  # some are right
    return x.requires_grad_(), weight.requires_grad_(), codes, share / share.sum()


def plain(x: Tensor, weight: Tensor, codes: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    logits = F.linear(x, weight)
    nats = F.cross_entropy(logits.flatten(0, -2), codes.flatten(), reduction="none").view_as(codes)
    return (nats * share).sum(), ((logits.argmax(dim=-1) == codes) * share).sum()


@pytest.mark.parametrize("logits_at_once", [1, 5 * 11, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradients_are_those_of_the_plain_formula(
    logits_at_once: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "_LOGITS", logits_at_once)
    x, weight, codes, share = problem(dtype)
    wanted, found = plain(x, weight, codes, share), linear_cross_entropy(x, weight, codes, share)
    torch.testing.assert_close(tuple(found), wanted, check_dtype=False)
    for loss in (3 * wanted[0], 3 * found.nats):
        loss.backward()
    # Both passes added up: the sum is twice the gradient of the plain formula.
    (three_x, three_weight) = torch.autograd.grad(3 * plain(x, weight, codes, share)[0], (x, weight))
    assert x.grad is not None
    assert weight.grad is not None
    torch.testing.assert_close((x.grad, weight.grad), (2 * three_x, 2 * three_weight))


def test_without_shares_all_tokens_count_alike() -> None:
    x, weight, codes, _ = problem()
    everywhere = torch.full(codes.shape, 1 / codes.numel())
    torch.testing.assert_close(tuple(linear_cross_entropy(x, weight, codes)), plain(x, weight, codes, everywhere))


def test_under_autocast_gradients_are_near_those_of_single_precision() -> None:
    x, weight, codes, share = problem()
    wanted = torch.autograd.grad(plain(x, weight, codes, share)[0], (x, weight))
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(x, weight, codes, share).nats
    assert loss.dtype == torch.float32
    found = torch.autograd.grad(loss, (x, weight))
    assert [grad.dtype for grad in found] == [torch.float32] * 2
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=2e-2)


def test_enormous_logits_stay_finite() -> None:
    x, weight, codes, share = problem()
    loss = linear_cross_entropy(1e4 * x, weight, codes, share).nats
    torch.testing.assert_close(loss, plain(1e4 * x, weight, codes, share)[0])
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(loss, (x, weight)))


def test_where_nothing_is_learnt_no_gradient_is_kept() -> None:
    x, weight, codes, share = problem()
    with torch.no_grad():
        assert not linear_cross_entropy(x, weight, codes, share).nats.requires_grad
