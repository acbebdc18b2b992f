"""Video files: small ones of known content, and what was written read back."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def read_video(path: Path) -> np.ndarray:
    """All frames of a video file, (t, h, w, 3) uint8."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])


def moving_frames(count: int, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    """(t, h, w, 3) uint8: frame t is gray of brightness 4 t, with a red upper left quarter."""
    h, w = size
    frames = np.broadcast_to(4 * np.arange(count, dtype=np.uint8)[:, None, None, None], (count, h, w, 3)).copy()
    frames[:, : h // 2, : w // 2] = (200, 0, 0)
    return frames


def write_video(
    path: Path,
    frames: np.ndarray,
    fps: int = 10,
    codec: str = "ffv1",
    pixels: str = "bgr0",
    milliseconds: Sequence[int] | None = None,
) -> Path:
    """Writes (t, h, w, 3) or, of pixels with alpha, (t, h, w, 4) as a film; without loss unless another codec is asked
    for. `milliseconds`: when each frame is shown.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.thread_type = pixels, "NONE"
        if milliseconds:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixel in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixel, format="rgba" if frames.shape[3] == 4 else "rgb24")
            if milliseconds:
                frame.pts, frame.time_base = milliseconds[number], Fraction(1, 1000)
            container.mux(stream.encode(frame.reformat(format=pixels)))
        container.mux(stream.encode())
    return path


def turn(path: Path) -> None:
    """Makes an mp4 say that the camera was held upright: it is shown turned by 90 degrees with the clock."""
    data, header = bytearray(path.read_bytes()), b"tkhd"
    # Version, times, number, length, layer, volume: then the matrix, row by row.
    at = data.index(header) + 4 + 4 + 20 + 8 + 8
    matrix = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    data[at : at + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in matrix)
    path.write_bytes(data)
