"""Films of frames, encoded as they come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqvideo.errors import InputError


class Encoding(NamedTuple):
    """How frames become a film."""

    codec: str
    """FFmpeg's name of the encoder."""
    pixels: str
    """FFmpeg's name of the pixel format."""
    ending: str
    """Of the file."""
    options: dict[str, str]
    """Of the encoder."""

    @property
    def standard(self) -> str:
        """What the stream is called by those who decode it."""
        return {"libx264": "h264"}.get(self.codec, self.codec)


# Colours at full resolution: halved, small frames would lose about 10 dB.
NEARLY = Encoding("libx264", "yuv444p", ".mp4", {"crf": "6", "preset": "medium"})
"""Frames that nobody tells from the originals: above 43 dB on the CarRacing clips that come along."""
LOSSLESS = Encoding("ffv1", "bgr0", ".mkv", {})
"""Frames to the bit, in several times as many bytes."""


class Film:
    """A film file under way.

    Args:
        path: of the new file.
        size: (h, w) of the frames.
        fps: frames per second.
        encoding: how.
        key_every: every how many frames one stands alone, from which decoding can begin.

    Raises:
        InputError: PyAV lacks the encoder, or refuses the frames; also from the methods.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: float, encoding: Encoding, key_every: int = 32) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self.path, self._encoding, self._size = path, encoding, size
        self._rate = Fraction(fps).limit_denominator(1001)
        # One for all frames: its preparations, with threads of its own, take longer than a small frame.
        self._reformatter = VideoReformatter()
        self.count = 0
        """Frames so far."""
        with self._refused():
            self._container = av.open(str(path), "w")
            # Frames in the order in which they are shown: the first one is at time 0 for every reader.
            options = {"g": str(key_every), "bf": "0"} | encoding.options
            stream: Any = self._container.add_stream(encoding.codec, rate=self._rate, options=options)
            stream.height, stream.width = size
            stream.pix_fmt = encoding.pixels
            self._stream = stream

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Takes the next frames, (n, h, w, 3) uint8 RGB."""
        import av

        with self._refused():
            for frame in np.ascontiguousarray(frames):
                picture = self._reformatter.reformat(
                    av.VideoFrame.from_ndarray(frame, format="rgb24"), format=self._encoding.pixels
                )
                picture.pts, picture.time_base = self.count, 1 / self._rate
                self._container.mux(self._stream.encode(picture))
                self.count += 1

    def close(self) -> None:
        """Completes the file."""
        with self._refused():
            if self.count:
                self._container.mux(self._stream.encode())
            self._container.close()

    @contextmanager
    def _refused(self) -> Iterator[None]:
        from av.codec.codec import UnknownCodecError
        from av.error import FFmpegError

        try:
            yield
        except (FFmpegError, UnknownCodecError) as error:
            h, w = self._size
            raise InputError(
                f"{self.path.name}: no film of {w} x {h} pixels, {self._encoding.codec} refuses it or is not in this "
                f"PyAV ({error}): pip install --force-reinstall av"
            ) from error
