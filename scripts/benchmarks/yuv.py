"""RGB frames to the planes that video codecs code and back, with as little loss as the pixel format allows.

ITU-R BT.601 in full range: at 8 bits it costs less in RGB than BT.709 (57 against 55 dB on CarRacing without
subsampling), and full range less than the 220 levels of television. Both directions are computed here in floating
point, so neither depends on how a scaler rounds, sites its chroma samples or guesses the range.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vqvideo.models.pixels import channels_first, channels_last

# Y = 0.299 R + 0.587 G + 0.114 B, Cb = (B - Y) / 1.772, Cr = (R - Y) / 1.402.
_KR, _KG, _KB = 0.299, 0.587, 0.114
_TO_YUV = torch.tensor(
    [
        [_KR, _KG, _KB],
        [-_KR / 1.772, -_KG / 1.772, 0.5],
        [0.5, -_KG / 1.402, -_KB / 1.402],
    ]
)
_REFINEMENTS = 3
"""Rounds of fitting halved chroma; further ones gain less than 0.01 dB."""


def to_planes(frames: np.ndarray, *, subsampled: bool, bits: int) -> list[np.ndarray]:
    """Y, Cb and Cr of frames.

    Args:
        frames: (t, h, w, 3) uint8 RGB; h and w even if subsampled.
        subsampled: halves the chroma planes in height and width (4:2:0).
        bits: per sample, 8 or 10.

    Returns:
        Arrays (t, h, w), the last two (t, h/2, w/2) if subsampled; uint8 or, above 8 bits, uint16.
    """
    rgb = torch.from_numpy(np.ascontiguousarray(frames)).float() / 255
    yuv = torch.einsum("ij,thwj->tihw", _TO_YUV, rgb)
    luma, chroma = yuv[:, :1], yuv[:, 1:]
    if subsampled:
        chroma = _halved(chroma)
    top, middle = 2**bits - 1, 2 ** (bits - 1)
    planes = [luma * top, chroma[:, :1] * top + middle, chroma[:, 1:] * top + middle]
    kind = np.uint8 if bits == 8 else np.uint16
    return [plane[:, 0].round().clamp(0, top).numpy().astype(kind) for plane in planes]


def from_planes(planes: list[np.ndarray], bits: int) -> np.ndarray:
    """Frames (t, h, w, 3) uint8 RGB from what `to_planes` gives."""
    top, middle = 2**bits - 1, 2 ** (bits - 1)
    y, cb, cr = (torch.from_numpy(plane.astype(np.float32)) for plane in planes)
    chroma = (torch.stack([cb, cr], dim=1) - middle) / top
    if chroma.shape[-2:] != y.shape[-2:]:
        chroma = _doubled(chroma)
    yuv = torch.cat([y[:, None] / top, chroma], dim=1)
    rgb = torch.einsum("ij,tjhw->thwi", torch.linalg.inv(_TO_YUV), yuv)
    return (rgb.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def doubled(frames: np.ndarray) -> np.ndarray:
    """Frames (t, h, w, 3) uint8 at twice the height and width, bicubic."""
    return _resized(frames, _doubled)


def halved(frames: np.ndarray) -> np.ndarray:
    """Frames (t, h, w, 3) uint8 at half the height and width, averaged."""
    return _resized(frames, lambda planes: F.avg_pool2d(planes, 2))


def _resized(frames: np.ndarray, resize: Callable[[Tensor], Tensor]) -> np.ndarray:
    resized = resize(channels_first(torch.from_numpy(frames).float()))
    return channels_last(resized.round().clamp(0, 255).to(torch.uint8)).contiguous().numpy()


def _halved(chroma: Tensor) -> Tensor:
    """Half the height and width, chosen so that `_doubled` comes near the original."""
    small = F.avg_pool2d(chroma, 2)
    for _ in range(_REFINEMENTS):
        small = small + F.avg_pool2d(chroma - _doubled(small), 2)
    return small


def _doubled(chroma: Tensor) -> Tensor:
    return F.interpolate(chroma, scale_factor=2.0, mode="bicubic")
