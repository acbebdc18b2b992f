"""Cross-entropy of codes under a linear layer, without ever holding the logits of a whole batch.

The logits of a batch are by far the largest tensor of a training step: 8,192 tokens of 1,024 codes take 32 MiB in
single precision, and plain torch writes four of them. Here they exist for a few hundred tokens at a time, which stay in
the processor's cache, and the gradient is computed at once while they are there (as Hsu et al. 2024, arXiv:2410.10989,
do on GPUs).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vqvideo.models.quantizers.base import fp32

_LOGITS = 2**19
"""Logits that exist at once: 2 MiB in single precision."""


class TokenLoss(NamedTuple):
    """How well a linear layer predicts codes."""

    nats: Tensor
    """Scalar: the weighted sum of the tokens' cross-entropies."""
    top1: Tensor
    """Scalar: the weighted sum over tokens, 1 where the likeliest code is right. Without gradient."""


def shares(counted: Tensor | None, codes: Tensor) -> Tensor | None:
    """What each token of codes (b, t, n) counts, where only some steps (b, t) do, all alike; None where all do."""
    if counted is None:
        return None
    return (counted / (counted.sum().clamp(min=1) * codes.shape[-1]))[..., None].expand_as(codes)


def linear_cross_entropy(x: Tensor, weight: Tensor, codes: Tensor, share: Tensor | None = None) -> TokenLoss:
    """Cross-entropy of codes (...) under the logits x W^T, for x (..., e) and `weight` W (k, e).

    Args:
        x: (..., e).
        weight: (k, e).
        codes: (...) int64.
        share: (...), what each token counts; None: all alike, with a sum of 1.
    """
    share = torch.full(codes.shape, 1 / codes.numel(), device=codes.device) if share is None else share
    rows = x.flatten(0, -2), weight, codes.flatten(), share.flatten()
    return TokenLoss(*_LinearCrossEntropy.apply(*rows, torch.is_grad_enabled()))


class _LinearCrossEntropy(torch.autograd.Function):
    """Rows (n, e), weight (k, e), codes (n,), share (n,) -> nats and top1, both scalars."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, codes: Tensor, share: Tensor, learns: bool
    ) -> tuple[Tensor, Tensor]:
        dtype = (x[:1] @ weight[:1].t()).dtype  # autocast's, where there is one
        exact = torch.promote_types(dtype, torch.float32)
        low, share = weight.to(dtype), share.to(exact)
        # Gradients of tokens are of order 1 until the end: their shares would be too small for half precision.
        largest = share.max()
        part_of_largest = share / largest
        nats, top1 = (torch.zeros((), dtype=exact, device=x.device) for _ in range(2))
        grad_x = torch.empty_like(x) if learns else None
        grad_weight = torch.zeros_like(weight, dtype=exact) if learns else None
        with fp32(x):
            for rows in _slices(len(x), max(1, _LOGITS // len(weight))):
                some, code = x[rows].to(dtype), codes[rows, None]
                p = (some @ low.t()).to(exact)
                top, right = p.amax(dim=-1), p.gather(-1, code)[:, 0]
                total = p.sub_(top[:, None]).exp_().sum(dim=-1)
                nats += (share[rows] * (total.log() + top - right)).sum()
                top1 += (share[rows] * (right >= top)).sum()
                if grad_x is not None and grad_weight is not None:
                    counts = part_of_largest[rows, None]
                    grad = p.mul_(counts / total[:, None]).scatter_add_(-1, code, -counts).to(dtype)
                    grad_x[rows] = grad @ low
                    grad_weight += grad.t() @ some
        if grad_x is not None and grad_weight is not None:
            ctx.save_for_backward(grad_x, grad_weight, largest)
            ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(top1)
        return nats, top1

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_weight, largest = ctx.saved_tensors
        scale = grads[0] * largest
        return grad_x * scale.to(grad_x.dtype), (grad_weight * scale).to(ctx.weight_dtype), None, None, None


def _slices(length: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, length, size))
