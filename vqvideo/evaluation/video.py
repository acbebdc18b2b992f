"""Files of videos (H.264 through PyAV) and pictures (PNG). Written and never read: no foreign file is decoded."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from vqvideo.storage.files import make_folder, replacing


def upscale(frames: np.ndarray, factor: int) -> np.ndarray:
    """Nearest-neighbour upscale of (t, h, w, 3) by a whole factor."""
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def write_mp4(path: Path, frames: np.ndarray, fps: float) -> None:
    """Writes frames as H.264 that every browser plays. The file appears under its name only when it is complete.

    Small frames want to be upscaled first: yuv420p halves the colour resolution, which at 64x64 alone costs about
    10 dB.

    Args:
        path: of the file.
        frames: (t, h, w, 3) uint8.
        fps: frames per second.

    Raises:
        DiskError: the file cannot be written.
    """
    import av

    h, w = frames.shape[1:3]
    # yuv420p needs even sides.
    frames = np.pad(frames, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")
    make_folder(path.parent)
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


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes (h, w, 3) uint8 as PNG; the file appears under its name only when it is complete."""
    make_folder(path.parent)
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
