"""Points of rate and quality, and the curve through the best of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from math import exp, log, nan
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vqvideo.evaluation import metrics
from vqvideo.evaluation.frame_sets import frechet_distance, lite0_features
from vqvideo.models.pixels import channels_first, to_unit
from vqvideo.models.tokenizer.features import Lite0Features

FEATURED = 32
"""Frames of a sequence whose features are taken."""


def unit(clip: np.ndarray) -> Tensor:
    """Frames (t, h, w, 3) uint8 as (t, 3, h, w) in 0 .. 1."""
    return to_unit(channels_first(torch.from_numpy(clip)))


@dataclass(frozen=True)
class Point:
    """A rate and what it buys."""

    name: str
    """Settings, or a model's folder and how its codes are coded."""
    family: str
    """x264, SVT-AV1 or the tokenizers' way of coding."""
    bits_per_pixel: float
    """Bits over frames x h x w."""
    psnr_db: float
    """Mean over frames of each frame's PSNR, as in the tokenizer's evaluation."""
    psnr_of_mean_mse_db: float
    """PSNR of the mean squared error over all frames: bad frames count more."""
    ssim: float
    """Mean over frames."""
    kbit_per_s: float
    """At the store's frames per second."""
    frechet: float = nan
    """Squared Fréchet distance of EfficientNet-Lite0 features to those of the real frames, over a sample of frames;
    nan if it was not measured.
    """


@dataclass
class Quality:
    """Sums over frames, from sequence to sequence."""

    pixels: int = 0
    """Frames x h x w."""
    bits: float = 0.0
    """Of all sequences."""
    psnr: list[float] = field(default_factory=list)
    """Per frame."""
    mse: list[float] = field(default_factory=list)
    """Per frame, of values in 0 .. 1."""
    ssim: list[float] = field(default_factory=list)
    """Per frame."""
    net: Lite0Features | None = None
    """For the Fréchet distance."""
    features: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Of decoded and of real frames, (n, d) each."""

    def add(self, decoded: Tensor, target: Tensor, bits: float) -> None:
        """Adds a sequence (t, c, h, w), in 0 .. 1, that took `bits`."""
        self.pixels += target.shape[0] * target.shape[2] * target.shape[3]
        self.bits += bits
        self.psnr += metrics.psnr(decoded, target).tolist()
        self.mse += (decoded - target).square().mean(dim=(1, 2, 3)).tolist()
        self.ssim += metrics.ssim(decoded, target).tolist()
        if self.net is not None:
            some = metrics.evenly(len(target), FEATURED)
            self.features.append((lite0_features(self.net, decoded[some]), lite0_features(self.net, target[some])))

    def point(self, name: str, family: str, fps: float) -> Point:
        """The figures over all that was added."""
        rate = self.bits / self.pixels
        seconds = len(self.psnr) / fps
        mean_mse = max(sum(self.mse) / len(self.mse), 1e-10)
        psnr, ssim = sum(self.psnr) / len(self.psnr), sum(self.ssim) / len(self.ssim)
        distance = frechet_distance(*map(torch.cat, zip(*self.features, strict=True))) if self.features else nan
        return Point(name, family, rate, psnr, -10 * log(mean_mse, 10), ssim, self.bits / seconds / 1000, distance)


Measure = Literal["psnr_db", "psnr_of_mean_mse_db"]
"""Fields of a point that a curve can be drawn of."""


def upper_hull(points: Iterable[Point], measure: Measure = "psnr_db") -> list[Point]:
    """The points that no other and no line between two others exceeds, by rising rate (log) and PSNR."""
    hull: list[Point] = []
    for point in sorted(points, key=lambda p: (p.bits_per_pixel, -getattr(p, measure))):
        if hull and getattr(point, measure) <= getattr(hull[-1], measure):
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1], measure) <= _slope(hull[-1], point, measure):
            hull.pop()
        hull.append(point)
    return hull


def interpolated(hull: Sequence[Point], bits_per_pixel: float, measure: Measure = "psnr_db") -> float:
    """PSNR of a hull at a rate, linear in the logarithm of the rate; nan outside of the hull."""
    for low, high in pairwise(hull):
        if low.bits_per_pixel <= bits_per_pixel <= high.bits_per_pixel:
            rise = _slope(low, high, measure) * log(bits_per_pixel / low.bits_per_pixel)
            return float(getattr(low, measure) + rise)
    return nan


def rate_at(hull: Sequence[Point], psnr_db: float) -> float:
    """Bits per pixel at which a hull has a PSNR; nan outside of the hull."""
    for low, high in pairwise(hull):
        if low.psnr_db <= psnr_db <= high.psnr_db:
            return low.bits_per_pixel * exp((psnr_db - low.psnr_db) / _slope(low, high, "psnr_db"))
    return nan


@dataclass(frozen=True)
class RateDistortion:
    """All points, and the codecs' curves."""

    ours: list[Point]
    """Of tokenizers."""
    codecs: dict[str, list[Point]]
    """By codec: all settings that were tried."""
    frames: int
    """In all sequences."""
    sequences: int
    """Episodes."""
    frame_size: tuple[int, int]
    """(h, w) in pixels."""

    @property
    def hulls(self) -> dict[str, list[Point]]:
        """By codec: its curve."""
        return {family: upper_hull(points) for family, points in self.codecs.items()}

    def compared(self, point: Point) -> dict[str, dict[str, float]]:
        """By codec: what it reaches at the point's rate and how far the point is above it, by both means over the
        frames, and the codec's rate at the point's PSNR.
        """
        found = {}
        for family, points in self.codecs.items():
            hull, strict = upper_hull(points), upper_hull(points, "psnr_of_mean_mse_db")
            psnr = interpolated(hull, point.bits_per_pixel)
            of_mean = interpolated(strict, point.bits_per_pixel, "psnr_of_mean_mse_db")
            found[family] = {
                "psnr_db_at_same_rate": psnr,
                "difference_db": point.psnr_db - psnr,
                "psnr_of_mean_mse_db_at_same_rate": of_mean,
                "difference_of_mean_mse_db": point.psnr_of_mean_mse_db - of_mean,
                "bits_per_pixel_at_same_psnr": rate_at(hull, point.psnr_db),
            }
        return found

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        return {
            "sequences": self.sequences,
            "frames": self.frames,
            "frame_size": list(self.frame_size),
            "tokenizers": [asdict(point) | {"codecs": self.compared(point)} for point in self.ours],
            "codecs": {family: [asdict(point) for point in points] for family, points in self.codecs.items()},
            "curves": {family: [point.name for point in hull] for family, hull in self.hulls.items()},
        }


def _slope(low: Point, high: Point, measure: Measure) -> float:
    """dB per unit of log rate."""
    rise: float = getattr(high, measure) - getattr(low, measure)
    return rise / max(log(high.bits_per_pixel / low.bits_per_pixel), 1e-12)
