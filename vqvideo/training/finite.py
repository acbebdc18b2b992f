"""Values that are not finite: found before the update, named, and agreed on by all ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from vqvideo.errors import RunStoppedError

_MOST_NAMES = 4
"""Tensors that a message lists."""


class NonFiniteError(RunStoppedError):
    """A loss, a gradient or a statistic is not finite; the last checkpoint is untouched. Scripts exit with code 3."""

    exit_code = 3


def any_non_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether floating-point tensors hold a value that is not finite: a bool on their device; nobody waits for it."""
    floats = [t for t in tensors if t.is_floating_point() and t.numel()]
    # The largest magnitude: unlike a sum of squares it cannot overflow, and NaN is passed on.
    return ~torch.nn.utils.get_total_norm(floats, norm_type=math.inf).isfinite()


def _not_finite(named: Iterable[tuple[str, Tensor | None]]) -> list[str]:
    return [name for name, t in named if t is not None and t.is_floating_point() and not t.isfinite().all()]


def findings(model: nn.Module, metrics: Mapping[str, float], norms: Iterable[Tensor]) -> str:
    """What is not finite in a step: loss terms and statistics by name, or else gradients.

    Args:
        model: with its gradients.
        metrics: the loss and its terms.
        norms: of the gradients; where they are finite, whatever is not lies on another rank.
    """
    terms = [f"{name} = {value}" for name, value in metrics.items() if not math.isfinite(value)]
    found = {"loss terms": terms, "statistics": _not_finite(model.named_buffers())}
    if not any(found.values()):
        found["gradient of"] = _not_finite((name, p.grad) for name, p in model.named_parameters())
    parts = [f"{what} {', '.join(names[:_MOST_NAMES])}" for what, names in found.items() if names]
    overflowed = any_non_finite(norms).item()
    unnamed = "the norm of the gradient, too large for a number" if overflowed else "a value on another rank"
    return f"not finite: {'; '.join(parts) or unnamed}"
