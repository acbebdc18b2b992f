"""Training losses as pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from vqvideo.models.tokenizer.config import ReconstructionConfig


class TermOutput(NamedTuple):
    """What a further term of the loss adds to a training pass."""

    loss: Tensor
    """Scalar, weighted. Its gradient gives each side of an adversarial game its own."""
    metrics: dict[str, Tensor]
    """Scalars to log."""


def reconstruction_loss(predicted: Tensor, target: Tensor, variance: Tensor, cfg: ReconstructionConfig) -> Tensor:
    """MSE / variance + l1 * L1 / standard deviation + the other weighted terms (scalar).

    Dividing by the variance of the data makes one commitment weight fit dark and bright worlds alike
    (van den Oord et al. 2017: the right beta depends on the scale of the reconstruction loss).

    Args:
        predicted, target: (b, t, c, h, w) in the range -1 .. 1. Terms about change are 0 for a single frame.
        variance: scalar, variance of the training frames.
        cfg: weights; a term of weight 0 costs nothing.
    """
    error = (predicted - target).square()
    loss = error.mean()
    if cfg.difference and target.shape[1] > 1:
        loss = loss + cfg.difference * F.mse_loss(predicted.diff(dim=1), target.diff(dim=1))
    if cfg.moving and target.shape[1] > 1:
        moved = moving_pixels(target, 2 * cfg.moving_threshold)
        loss = loss + cfg.moving * (error[:, 1:] * moved).sum() / error.numel()
    if cfg.worst:
        loss = loss + cfg.worst * error.mean(dim=2).amax(dim=(-2, -1)).mean()
    loss = loss / variance
    return loss + cfg.l1 * F.l1_loss(predicted, target) / variance.sqrt() if cfg.l1 else loss


def moving_pixels(frames: Tensor, threshold: float) -> Tensor:
    """Which pixels of frames 1 .. t - 1 differ from the frame before by more than `threshold` in a channel.

    (b, t, c, h, w) -> (b, t - 1, 1, h, w) bool.
    """
    return frames.diff(dim=1).abs().amax(dim=2, keepdim=True) > threshold
