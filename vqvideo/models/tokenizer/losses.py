"""Training losses as pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
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
    loss: Tensor = _Error.apply(predicted, target, variance, cfg.difference, cfg.l1)
    if cfg.moving and target.shape[1] > 1:
        moved = moving_pixels(target, 2 * cfg.moving_threshold)
        squared = (predicted - target)[:, 1:].square()
        loss = loss + cfg.moving * (squared * moved).sum() / (predicted.numel() * variance)
    if cfg.worst:
        worst = (predicted - target).square().mean(dim=2).amax(dim=(-2, -1))
        loss = loss + cfg.worst * worst.mean() / variance
    return loss


class _Error(torch.autograd.Function):
    """The terms of every pixel: squared error, that of the change from frame to frame, and absolute error.

    The gradient is made along with the value, in fewer passes over the pixels than operation by operation, forwards and
    backwards: beside the convolutions of a small tokenizer these count.
    """

    @staticmethod
    def forward(ctx: Any, predicted: Tensor, target: Tensor, variance: Tensor, difference: float, l1: float) -> Tensor:
        error = predicted - target
        loss = error.square().mean()
        gradient = error * (2 / error.numel())
        if difference and error.shape[1] > 1:
            # The error of the change is the change of the error.
            change = error.diff(dim=1)
            weight = difference / change.numel()
            loss = loss + difference * change.square().mean()
            gradient[:, 1:].add_(change, alpha=2 * weight)
            gradient[:, :-1].sub_(change, alpha=2 * weight)
        loss = loss / variance
        if l1:
            weights = l1 / error.numel() / variance.sqrt()
            loss = loss + error.abs().sum() * weights
            gradient.add_(error.sign_().mul_(weights * variance))
        ctx.save_for_backward(gradient, variance)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        gradient, variance = ctx.saved_tensors
        return gradient * (upstream / variance), None, None, None, None


def moving_pixels(frames: Tensor, threshold: float) -> Tensor:
    """Which pixels of frames 1 .. t - 1 differ from the frame before by more than `threshold` in a channel.

    (b, t, c, h, w) -> (b, t - 1, 1, h, w) bool.
    """
    return frames.diff(dim=1).abs().amax(dim=2, keepdim=True) > threshold
