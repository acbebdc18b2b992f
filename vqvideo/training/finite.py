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


def _culprits(named: Iterable[tuple[object, Tensor | None]]) -> list[str]:
    return [str(name) for name, t in named if t is not None and t.is_floating_point() and not t.isfinite().all()]


def name_tensors(named: Iterable[tuple[str, Tensor | None]]) -> str:
    """The first names of tensors that are not finite, and how many more there are; empty if all are finite."""
    names = _culprits(named)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def name_terms(metrics: Mapping[str, float]) -> str:
    """The terms that are not finite, with their values; empty if all are finite."""
    return ", ".join(f"{name} = {value}" for name, value in metrics.items() if not math.isfinite(value))


def findings(model: nn.Module, metrics: Mapping[str, float], norms: Iterable[Tensor]) -> str:
    """What is not finite in a step: loss terms and statistics by name, or else gradients.

    Args:
        model: with its gradients.
        metrics: the loss and its terms.
        norms: of the gradients; where they are finite, whatever is not lies on another rank.
    """
    found = {"loss terms": name_terms(metrics), "statistics": name_tensors(model.named_buffers())}
    if not any(found.values()):
        found["gradient of"] = name_tensors((name, p.grad) for name, p in model.named_parameters())
    parts = [f"{what} {names}" for what, names in found.items() if names]
    overflowed = any_non_finite(norms).item()
    unnamed = "the norm of the gradient, too large for a number" if overflowed else "a value on another rank"
    return f"not finite: {'; '.join(parts) or unnamed}"
