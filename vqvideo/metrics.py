"""Metrics as pure functions. Frames are float in 0 .. 1, laid out (..., c, h, w)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvideo.losses import moving_pixels


def psnr(predicted: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, one per frame: (..., c, h, w) -> (...). Capped at 100 dB."""
    mse = (predicted.float() - target.float()).square().mean(dim=(-3, -2, -1))
    return -10 * mse.clamp(min=1e-10).log10()


def changed_pixel_error(predicted: Tensor, target: Tensor, threshold: float = 0.05) -> tuple[Tensor, Tensor]:
    """Sum and number of the squared errors at the pixels that changed since the frame before, where quality shows.

    Args:
        predicted, target: (b, t, c, h, w) with t >= 2; the first frame only serves as the past of the second.
        threshold: a pixel changed if a channel moved by more than this.

    Returns:
        Two scalars; add them up over batches, then `changed_pixel_psnr`.
    """
    moved = moving_pixels(target, threshold)
    error = (predicted[:, 1:] - target[:, 1:]).square()
    return (error * moved).double().sum(), moved.sum() * error.shape[2]


def changed_pixel_psnr(error: Tensor, count: Tensor) -> float:
    """PSNR in dB of the sums of `changed_pixel_error`; nan if no pixel changed."""
    return (-10 * (error / count).clamp(min=1e-10).log10()).item()


def ssim(predicted: Tensor, target: Tensor) -> Tensor:
    """Structural similarity, one per frame: (..., c, h, w) -> (...).

    Wang et al. 2004, "Image quality assessment": 11 x 11 Gaussian window with sigma 1.5, K1 = 0.01, K2 = 0.03,
    per channel, averaged over the positions where the window fits. Frames of fewer than 11 pixels get the largest
    window that fits.
    """
    shape = predicted.shape
    x, y = (v.float().reshape(-1, 1, *shape[-2:]) for v in (predicted, target))
    window = _gaussian_window(min(11, *shape[-2:]), 1.5).to(x.device)

    def blur(v: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(v, window[None, None, :, None]), window[None, None, None, :])

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    score = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return score.mean(dim=(-2, -1)).reshape(shape[:-2]).mean(dim=-1)


def _gaussian_window(size: int, sigma: float) -> Tensor:
    x = torch.arange(size) - (size - 1) / 2
    weights = torch.exp(-(x**2) / (2 * sigma**2))
    return weights / weights.sum()


def code_counts(codes: Tensor, codebook_size: int) -> Tensor:
    """How often each code occurs: int64 (k,). Add the counts of batches and ranks before judging usage."""
    return torch.bincount(codes.reshape(-1), minlength=codebook_size)


def usage(counts: Tensor) -> float:
    """Share of the codes that occur at least once."""
    return (counts > 0).double().mean().item()


def effective_bits(counts: Tensor) -> float:
    """Entropy in bits of the distribution of codes: what a token carries without context.

    Perplexity is 2 ** effective_bits. Both are biased low by small samples, so count a whole held-out set.
    """
    p = counts.double() / counts.sum()
    return (p * -p.clamp(min=1e-12).log2()).sum().item()


def repeat_rate(frames: Tensor, threshold: float = 1 / 255) -> float:
    """Share of imagined steps that merely repeat the step before.

    Args:
        frames: (b, t, c, h, w), the last frame of each latent step.
        threshold: a step whose mean absolute change is below this is a repeat.
    """
    change = (frames[:, 1:] - frames[:, :-1]).abs().mean(dim=(-3, -2, -1))
    return (change < threshold).double().mean().item()


def average_precision(scores: Tensor, labels: Tensor) -> float:
    """Area under the precision-recall curve of scores (n,) for binary labels (n,); nan without positives.

    Equal scores are one threshold: a constant score gets the share of positives, whatever the order.
    """
    scores, order = scores.sort(descending=True)
    hits = labels[order].double().cumsum(0)
    if not len(hits) or hits[-1] == 0:
        return float("nan")
    last = torch.cat([scores[1:] != scores[:-1], scores.new_ones(1, dtype=torch.bool)])
    found, taken = hits[last], 1 + torch.arange(len(hits), device=hits.device)[last]
    gained = found.diff(prepend=found.new_zeros(1))
    return ((found / taken * gained).sum() / hits[-1]).item()
