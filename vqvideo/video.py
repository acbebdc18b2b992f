"""Video: the one border between uint8 and float, H.264 files through PyAV, contact sheets.

Files are written and never read: nothing here decodes what others made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vqvideo.errors import InputError


def to_signed(frames: Tensor) -> Tensor:
    """uint8 in 0 .. 255 or float in 0 .. 1, to float in -1 .. 1. Any layout. Floats are not clamped."""
    if frames.dtype == torch.uint8:
        return frames.float() / 127.5 - 1
    if frames.is_floating_point():
        return frames * 2 - 1
    raise InputError(f"frames of type {frames.dtype}, expected uint8 in 0..255 or float in 0..1")


def from_signed(frames: Tensor) -> Tensor:
    """Float in -1 .. 1 to float in 0 .. 1, clamped. Any layout."""
    return ((frames + 1) / 2).clamp(0, 1)


def to_unit(frames: Tensor) -> Tensor:
    """uint8 or float frames to float in 0 .. 1. Any layout."""
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames.float()


def to_uint8(frames: Tensor) -> Tensor:
    """Float in 0 .. 1 to uint8, rounded. Any layout."""
    return frames if frames.dtype == torch.uint8 else (frames.float().clamp(0, 1) * 255).round().to(torch.uint8)


def upscale(frames: np.ndarray, factor: int) -> np.ndarray:
    """Nearest-neighbour upscale of (t, h, w, 3) by a whole factor."""
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def write_mp4(path: Path, frames: np.ndarray, fps: float, scale: int = 4) -> None:
    """Writes frames (t, h, w, 3) uint8 as H.264 that every browser plays.

    Small frames are upscaled by nearest neighbour first: yuv420p halves the colour resolution, which at 64x64
    alone costs about 10 dB. The file appears under its name only when it is complete.
    """
    import av

    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise InputError(f"video of shape {frames.shape} {frames.dtype}, expected (t, h, w, 3) uint8 with t >= 1")
    frames = _even(upscale(frames, scale))
    with (
        replacing(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate, options={"crf": "16", "preset": "medium"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which takes its place when all went well and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes (h, w, 3) uint8 as PNG; the file appears under its name only when it is complete."""
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")


def stack_rows(rows: Sequence[np.ndarray], gap: int = 1) -> np.ndarray:
    """Clips (t, h, w, 3) of one length, one above the other, with a white line between them."""
    line = np.full((len(rows[0]), gap, *rows[0].shape[2:]), 255, np.uint8)
    parts = [part for row in rows for part in (row, line)][:-1]
    return np.concatenate(parts, axis=1)


def side_by_side(clips: Sequence[np.ndarray], gap: int = 3) -> np.ndarray:
    """Clips (t, h, w, 3) of one length, next to each other, with a white line between them."""
    line = np.full((*clips[0].shape[:2], gap, 3), 255, np.uint8)
    parts = [part for clip in clips for part in (clip, line)][:-1]
    return np.concatenate(parts, axis=2)


def contact_sheet(frames: np.ndarray, columns: int, scale: int = 2, gap: int = 1) -> np.ndarray:
    """`columns` evenly spread frames of (t, h, w, 3) side by side, (h', w', 3) uint8."""
    picks = np.linspace(0, len(frames) - 1, min(columns, len(frames))).round().astype(int)
    tiles = upscale(frames[picks], scale)
    line = np.full((tiles.shape[1], gap * scale, 3), 255, np.uint8)
    return np.concatenate([part for tile in tiles for part in (tile, line)][:-1], axis=1)


def _even(frames: np.ndarray) -> np.ndarray:
    """Pads height and width to even numbers by repeating the edge: yuv420p needs them."""
    h, w = frames.shape[1:3]
    return np.pad(frames, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge") if h % 2 or w % 2 else frames
