"""Pixels: the one border between uint8 and float, and between channels last and channels first.

Environments, stores, pictures and video files hold frames channels last, models channels first.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from vqvideo.errors import InputError

Frames = TypeVar("Frames", Tensor, NDArray[Any])


def channels_first(frames: Frames) -> Frames:
    """(..., h, w, c) to (..., c, h, w), a view, of a tensor or an array."""
    return rearrange(frames, "... h w c -> ... c h w")


def channels_last(frames: Frames) -> Frames:
    """(..., c, h, w) to (..., h, w, c), a view, of a tensor or an array."""
    return rearrange(frames, "... c h w -> ... h w c")


def to_signed(frames: Tensor) -> Tensor:
    """uint8 in 0 .. 255 or float in 0 .. 1, to float in -1 .. 1. Any layout. Floats are not clamped."""
    if frames.dtype == torch.uint8:
        return frames.float() / 127.5 - 1
    if frames.is_floating_point():
        return frames * 2 - 1
    raise InputError(f"frames of type {frames.dtype}, expected uint8 in 0..255 or float in 0..1")


def from_signed(frames: Tensor) -> Tensor:
    """Float in -1 .. 1 to float in 0 .. 1, clamped. Any layout."""
    return (frames + 1).div_(2).clamp(0, 1)


def to_unit(frames: Tensor) -> Tensor:
    """uint8 or float frames to float in 0 .. 1. Any layout."""
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames.float()


def to_uint8(frames: Tensor) -> Tensor:
    """Float in 0 .. 1 to uint8, rounded. Any layout."""
    return frames if frames.dtype == torch.uint8 else frames.float().clamp(0, 1).mul_(255).round_().to(torch.uint8)
