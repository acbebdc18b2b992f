"""What an anomaly detector saw: a plot of its scores over time, and frames with where they come from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vqvideo.evaluation.anomaly import Seen

Frames = NDArray[np.uint8]
_SIZE, _LEFT, _BOTTOM = (900, 300), 60, 30
_LINE, _ALARM, _GREY = (0, 90, 160), (213, 94, 0), (120, 120, 120)
"""Blue and vermilion, which colour-blind people tell apart."""
_SIDE = 256
"""Pixels of the shorter side of a frame in the film, about."""
_FULL = 8.0
"""Nats of a token that colour it wholly: as if its code had been one of three thousand."""


def score_plot(scores: NDArray[np.float64], threshold: float, seconds: NDArray[np.float64]) -> Frames:
    """Scores (n,) over time in seconds (n,), with the threshold as a line and alarms in another colour: (h, w, 3)."""
    image = Image.new("RGB", _SIZE, "white")
    pen = ImageDraw.Draw(image)
    low, high = min(float(scores.min()), threshold), max(float(scores.max()), threshold)
    span, last = max(high - low, 1e-9), max(float(seconds[-1]), 1e-9)
    width, height = _SIZE[0] - _LEFT - 20, _SIZE[1] - _BOTTOM - 30

    def place(second: float, score: float) -> tuple[float, float]:
        return _LEFT + width * second / last, 20 + height * (1 - (score - low) / span)

    for value in np.linspace(low, high, 5):
        pen.text((4, place(0, value)[1] - 6), f"{value:8.1f}", _GREY)
    for second in np.linspace(0, last, 7):
        pen.text((place(second, low)[0] - 8, _SIZE[1] - _BOTTOM), f"{second:.1f} s", _GREY)
    pen.line([place(0, threshold), place(last, threshold)], _ALARM, 1)
    pen.text((_LEFT + 4, place(0, threshold)[1] - 14), "threshold", _ALARM)
    points = [place(second, score) for second, score in zip(seconds, scores, strict=True)]
    if len(points) > 1:
        pen.line(points, _LINE, 2)
    for point, score in zip(points, scores, strict=True):
        if score > threshold:
            pen.ellipse([point[0] - 3, point[1] - 3, point[0] + 3, point[1] + 3], _ALARM)
    pen.text((_LEFT + 4, 4), "score of each latent step: standard deviations above what is normal", "black")
    return np.asarray(image)


def overlaid(seen: Seen, *, alarm: bool) -> list[Frames]:
    """The frames of a step, enlarged, with unexpected places coloured, and framed where it is an alarm."""
    h, w = seen.frames.shape[1:3]
    factor = max(1, round(_SIDE / min(h, w)))
    share = (seen.surprise.nats[0].double() / _FULL).clamp(0, 1).cpu().numpy()
    mask = Image.fromarray((share * 160).astype(np.uint8)).resize((w * factor, h * factor), Image.Resampling.NEAREST)
    return [_one(frame, mask, alarm) for frame in seen.frames]


def _one(frame: Frames, mask: Image.Image, alarm: bool) -> Frames:
    image = Image.fromarray(frame).resize(mask.size, Image.Resampling.NEAREST)
    image = Image.composite(Image.new("RGB", mask.size, _ALARM), image, mask)
    if alarm:
        ImageDraw.Draw(image).rectangle([0, 0, mask.size[0] - 1, mask.size[1] - 1], outline=_ALARM, width=6)
    return np.asarray(image)
