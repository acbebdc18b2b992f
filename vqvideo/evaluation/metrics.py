"""Metrics as pure functions. Frames are float in 0 .. 1, laid out (..., c, h, w)."""

from __future__ import annotations

import torch
from torch import Tensor

from vqvideo.models.tokenizer.losses import moving_pixels


def to_double(values: Tensor) -> Tensor:
    """float64 on the CPU, where figures are added up: GPUs of Apple have no such numbers."""
    return values.cpu().double()


def evenly(size: int, count: int) -> list[int]:
    """At most `count` different numbers of 0 .. size - 1, evenly spaced from end to end."""
    return torch.linspace(0, size - 1, min(count, size)).round().long().tolist()


def psnr(predicted: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, one per frame: (..., c, h, w) -> (...). Capped at 100 dB."""
    mse = (predicted.float() - target.float()).square().mean(dim=(-3, -2, -1))
    return -10 * mse.clamp(min=1e-10).log10()


def changed_pixel_errors(predicted: Tensor, target: Tensor, threshold: float = 0.05) -> tuple[Tensor, Tensor]:
    """Sum and number of the squared errors at the pixels that changed since the frame before, where quality shows.

    Args:
        predicted, target: (b, t, c, h, w) with t >= 2; the first frame only serves as the past of the second.
        threshold: a pixel changed if a channel moved by more than this.

    Returns:
        Two tensors (b, t - 1), of each frame but the first; add them up over clips, then `changed_pixel_psnr`.
    """
    moved = moving_pixels(target, threshold)
    error = (predicted[:, 1:] - target[:, 1:]).square()
    pixels = (-3, -2, -1)
    return (error * moved).sum(dim=pixels), moved.sum(dim=pixels) * error.shape[2]


def changed_pixel_psnr(error: Tensor, count: Tensor) -> Tensor:
    """PSNR in dB of sums of `changed_pixel_errors`, (...) each; nan where no pixel changed."""
    return -10 * (error / count).clamp(min=1e-10).log10()


def ssim(predicted: Tensor, target: Tensor) -> Tensor:
    """Structural similarity, one per frame: (..., c, h, w) -> (...).

    Wang et al. 2004, "Image quality assessment": 11 x 11 Gaussian window with sigma 1.5, K1 = 0.01, K2 = 0.03,
    per channel, averaged over the positions where the window fits. Frames of fewer than 11 pixels get the largest
    window that fits.
    """
    shape = predicted.shape
    x, y = (v.float().reshape(-1, *shape[-2:]) for v in (predicted, target))
    window = _gaussian_window(min(11, *shape[-2:]), 1.5)
    down, across = _sliding(window, shape[-2]).to(x.device), _sliding(window, shape[-1]).T.to(x.device)

    def blur(v: Tensor) -> Tensor:
        # As matrices: on a CPU several times as fast as convolutions of a single channel.
        return down @ (v @ across)

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    score = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return score.mean(dim=(-2, -1)).reshape(shape[:-2]).mean(dim=-1)


def _gaussian_window(size: int, sigma: float) -> Tensor:
    x = torch.arange(size) - (size - 1) / 2
    weights = torch.exp(-(x**2) / (2 * sigma**2))
    return weights / weights.sum()


def _sliding(window: Tensor, size: int) -> Tensor:
    """The window at every place where it fits: (size - window + 1, size)."""
    places = size - len(window) + 1
    at = torch.arange(places)[:, None] + torch.arange(len(window))
    return torch.zeros(places, size).scatter_(1, at, window.expand(places, -1))


def repeats(frames: Tensor, threshold: float = 1 / 255) -> Tensor:
    """Whether imagined steps merely repeat the step before: (b, t - 1) bool.

    Args:
        frames: (b, t, c, h, w), the last frame of each latent step.
        threshold: a step whose mean absolute change is below this is a repeat.
    """
    return (frames[:, 1:] - frames[:, :-1]).abs().mean(dim=(-3, -2, -1)) < threshold


def average_precision(scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> float:
    """Area under the precision-recall curve of scores (n,) for binary labels (n,); nan without positives.

    Equal scores are one threshold: a constant score gets the share of positives, whatever the order. `weights` (n,):
    how much each counts.
    """
    scores, order = scores.sort(descending=True)
    counted = torch.ones_like(scores, dtype=torch.float64) if weights is None else weights[order].double()
    hits = (labels[order] * counted).cumsum(0)
    if not len(hits) or hits[-1] == 0:
        return float("nan")
    last = torch.cat([scores[1:] != scores[:-1], scores.new_ones(1, dtype=torch.bool)])
    found, taken = hits[last], counted.cumsum(0)[last]
    gained = found.diff(prepend=found.new_zeros(1))
    return ((found / taken * gained).sum() / hits[-1]).item()


def expected_calibration_error(
    probabilities: Tensor, labels: Tensor, weights: Tensor | None = None, bins: int = 15
) -> float:
    """How far probabilities (n,) are from the frequencies of binary labels (n,) that come with them; nan for none.

    Mean over equally wide bins of |mean label - mean probability|, weighted by how many fall into the bin (Naeini et
    al. 2015, "Obtaining well calibrated probabilities using Bayesian binning"; Guo et al. 2017, arXiv:1706.04599,
    eq. 3). `weights` (n,): how much each counts.
    """
    if not len(probabilities):
        return float("nan")
    p = probabilities.double()
    counted = torch.ones_like(p) if weights is None else weights.double()
    bin_of = (p * bins).long().clamp(0, bins - 1)
    # The counts cancel: count * |mean - mean| = |sum - sum|.
    gaps = p.new_zeros(bins).index_add_(0, bin_of, (labels.double() - p) * counted)
    return (gaps.abs().sum() / counted.sum()).item()


def calibration_slope(predicted: Tensor, real: Tensor, weights: Tensor | None = None) -> float:
    """Slope of the least-squares line of real (n,) on predicted (n,): 1 is calibrated, less than 1 is too far from the
    mean, more is too near; nan for a constant prediction. `weights` (n,): how much each counts.
    """
    counted = torch.ones_like(predicted, dtype=torch.float64) if weights is None else weights.double()
    share = counted / counted.sum()
    x, y = (values - values @ share for values in (predicted.double(), real.double()))
    # Rounding alone spreads a constant about its weighted mean.
    varies = len(predicted) > 0 and bool(predicted.max() > predicted.min())
    return ((x * y) @ share / (x.square() @ share)).item() if varies else float("nan")
