"""Files of videos (H.264 through PyAV) and pictures (PNG). Written and never read: no foreign file is decoded."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from vqvideo.errors import InputError
from vqvideo.storage.files import make_folder, replacing


def upscale(frames: np.ndarray, factor: int) -> np.ndarray:
    """Nearest-neighbour upscale of (t, h, w, 3) by a whole factor."""
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def write_mp4(path: Path, frames: Iterable[np.ndarray], fps: float, scale: int = 4) -> None:
    """Writes frames as H.264 that every browser plays. The file appears under its name only when it is complete.

    Small frames are upscaled by nearest neighbour first: yuv420p halves the colour resolution, which at 64x64
    alone costs about 10 dB.

    Args:
        path: of the file.
        frames: (t, h, w, 3) uint8, or whatever gives (h, w, 3) uint8 of one size, one by one; only one is held.
        fps: frames per second.
        scale: whole factor.

    Raises:
        InputError: no frames, one of another shape or type than that, or one of another size than the first.
        DiskError: the file cannot be written.
    """
    import av

    coming = iter(frames)
    first = next(coming, None)
    if first is None:
        raise InputError(f"{path}: a video without frames, expected (t, h, w, 3) uint8 with t >= 1")
    make_folder(path.parent)
    with (
        replacing(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate, options={"crf": "16", "preset": "medium"})
        stream.height, stream.width = _picture(first, first, scale).shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in chain((first,), coming):
            picture = _picture(frame, first, scale)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _picture(frame: np.ndarray, first: np.ndarray, scale: int) -> np.ndarray:
    """A frame as it is encoded. InputError unless it is (h, w, 3) uint8 and as large as the first one."""
    if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8 or not frame.size:
        raise InputError(f"a frame of shape {frame.shape} {frame.dtype}, expected (h, w, 3) uint8")
    if frame.shape != first.shape:
        raise InputError(f"a frame of shape {frame.shape} after ones of {first.shape}: a video has one size")
    return _even(upscale(frame[None], scale))[0]


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes (h, w, 3) uint8 as PNG; the file appears under its name only when it is complete."""
    make_folder(path.parent)
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")


def _even(frames: np.ndarray) -> np.ndarray:
    """Pads height and width to even numbers by repeating the edge: yuv420p needs them."""
    h, w = frames.shape[1:3]
    return np.pad(frames, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge") if h % 2 or w % 2 else frames
