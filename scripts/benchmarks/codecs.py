"""Classical video codecs as peers of the tokenizer: x264, x265 and SVT-AV1 through PyAV, given every advantage.

Slow presets tuned for PSNR, one key frame, frames of a whole episode to predict from, two pixel formats and depths.
Only what a decoder needs is counted: no container, no start codes or temporal delimiters, no text that names the
encoder.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from vqvideo.errors import InputError
from vqvideo.scripts.benchmarks.yuv import doubled, from_planes, halved, to_planes

if TYPE_CHECKING:
    import av

_FORMATS = {"yuv444p": 8, "yuv420p": 8, "yuv444p10le": 10, "yuv420p10le": 10}


class Encoded(NamedTuple):
    """A clip after a codec."""

    bytes: int
    """Size of what a decoder needs."""
    frames: np.ndarray
    """(t, h, w, 3) uint8: the decoded clip."""


@dataclass(frozen=True)
class Codec(ABC):
    """A codec and its settings."""

    crf: int = 30
    """Constant rate factor: larger is smaller and worse."""
    pixels: str = "yuv420p"
    """Pixel format: yuv420p halves the colour resolution, yuv444p does not, ...10le has 10 bits per sample."""

    encoder: ClassVar[str]
    """FFmpeg's name of the encoder."""
    decoder: ClassVar[str]
    """FFmpeg's name of the decoder."""
    formats: ClassVar[tuple[str, ...]]
    """Pixel formats that the encoder takes."""
    smallest: ClassVar[int] = 2
    """Fewest pixels a side."""
    largest_crf: ClassVar[int] = 51
    """Worst quality."""

    def __post_init__(self) -> None:
        if self.pixels not in self.formats:
            raise InputError(f"{self.encoder}: pixels {self.pixels!r}, expected one of {', '.join(self.formats)}")
        if not 0 <= self.crf <= self.largest_crf:
            raise InputError(f"{self.encoder}: crf {self.crf}, expected 0..{self.largest_crf}")

    @property
    def name(self) -> str:
        """Encoder, format and quality in one word."""
        return f"{self.encoder}-{self.pixels}-crf{self.crf}"

    @abstractmethod
    def options(self) -> dict[str, str]:
        """Options of the encoder."""

    @abstractmethod
    def payload(self, packet: bytes) -> int:
        """Bytes of a packet that a decoder needs, given its boundaries."""

    def encode(self, frames: np.ndarray, fps: float = 25.0) -> Encoded:
        """Encodes and decodes a clip.

        Args:
            frames: (t, h, w, 3) uint8 RGB.
            fps: frames per second; encoders weigh quality over time by it.

        Raises:
            InputError: frames of another shape or type, of a size that the codec refuses, or the codec is missing.
        """
        import av

        self._check(frames)
        bits = _FORMATS[self.pixels]
        planes = to_planes(frames, subsampled="420" in self.pixels, bits=bits)
        # SVT-AV1 reports all that it does on stderr otherwise.
        os.environ.setdefault("SVT_LOG", "1")
        try:
            with _scheduling_kept():
                packets = list(self._packets(planes, frames.shape[1:3], fps))
            decoded = _decode(self.decoder, packets)
        except (av.error.FFmpegError, ValueError) as error:
            size = f"{frames.shape[2]}x{frames.shape[1]}"
            raise InputError(f"{self.encoder} refuses {len(frames)} frames of {size} {self.pixels}: {error}") from error
        if len(decoded[0]) != len(frames):
            raise InputError(f"{self.encoder} returned {len(decoded[0])} of {len(frames)} frames")
        return Encoded(sum(self.payload(bytes(packet)) for packet in packets), from_planes(decoded, bits))

    def takes(self, h: int, w: int) -> bool:
        """Whether frames of this size can be encoded."""
        return min(h, w) >= self.smallest and not ("420" in self.pixels and (h % 2 or w % 2))

    def _check(self, frames: np.ndarray) -> None:
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
            raise InputError(f"frames of shape {frames.shape} {frames.dtype}, expected (t, h, w, 3) uint8 with t >= 1")
        h, w = frames.shape[1:3]
        if self.takes(h, w):
            return
        if min(h, w) < self.smallest:
            raise InputError(f"{self.encoder} takes frames of {self.smallest} pixels a side or more, these are {w}x{h}")
        if not ("420" in self.pixels and (h % 2 or w % 2)):
            raise InputError(f"{self.encoder} is given frames of other sides than these, {w}x{h}: take multiples of 8")
        raise InputError(f"{self.pixels} takes even sides, these frames are {w}x{h}: choose yuv444p or pad them")

    def _packets(self, planes: list[np.ndarray], size: tuple[int, ...], fps: float) -> Iterator[av.Packet]:
        import av

        context: Any = av.CodecContext.create(self.encoder, "w")
        rate = Fraction(fps).limit_denominator(1001)
        context.height, context.width, context.pix_fmt = size[0], size[1], self.pixels
        context.framerate, context.time_base = rate, 1 / rate
        # Full range, BT.601: what `vqvideo.scripts.benchmarks.yuv` computes.
        context.color_range, context.colorspace = 2, 5
        context.options = self.options()
        for number, pictures in enumerate(zip(*planes, strict=True)):
            frame = av.VideoFrame(size[1], size[0], self.pixels)
            for plane, picture in zip(frame.planes, pictures, strict=True):
                _fill(plane, picture)
            frame.pts, frame.time_base = number, context.time_base
            yield from context.encode(frame)
        yield from context.encode(None)


@contextmanager
def _scheduling_kept() -> Iterator[None]:
    """Leaves the thread as urgent as it was. Where it may, SVT-AV1 makes its caller a real-time process, and for ever:
    whatever waits in a loop in it, or in its children, stops the machine.
    """
    if not hasattr(os, "sched_getscheduler"):  # outside of Linux
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


@dataclass(frozen=True)
class NalCodec(Codec):
    """A codec of NAL units that takes colours in full resolution."""

    pixels: str = "yuv444p"
    """Pixel format."""
    chroma_offset: int = 0
    """Added to the quantizer of the colour planes: the encoders choose one that suits the eye, not RGB's PSNR."""

    @property
    def name(self) -> str:
        return f"{super().name}-chroma{self.chroma_offset:+d}"

    @staticmethod
    def units(packet: bytes) -> list[bytes]:
        """The NAL units of a packet, without start codes."""
        return [unit for unit in re.split(b"\x00\x00\x00?\x01", packet) if unit]


@dataclass(frozen=True)
class X264(NalCodec):
    """H.264 by x264, preset veryslow."""

    encoder = "libx264"
    decoder = "h264"
    formats = ("yuv444p", "yuv420p")

    def options(self) -> dict[str, str]:
        own = f"keyint=infinite:scenecut=0:threads=1:chroma-qp-offset={self.chroma_offset}"
        return {"preset": "veryslow", "tune": "psnr", "crf": str(self.crf), "x264-params": own}

    def payload(self, packet: bytes) -> int:
        """NAL units without start codes, access unit delimiters and SEI, which holds x264's version as text."""
        return sum(len(unit) for unit in self.units(packet) if unit[0] & 31 not in (6, 9))


@dataclass(frozen=True)
class X265(NalCodec):
    """H.265 by x265, preset veryslow."""

    encoder = "libx265"
    decoder = "hevc"
    formats = ("yuv444p", "yuv420p", "yuv444p10le")
    smallest = 64

    def takes(self, h: int, w: int) -> bool:
        # At 33, 34 and 40 pixels a side the encoder of PyAV 18 corrupts its memory: it may end the whole process.
        return super().takes(h, w) and h % 8 == 0 and w % 8 == 0

    def options(self) -> dict[str, str]:
        alone = "pools=none:frame-threads=1:log-level=none:info=0"
        offsets = f"cbqpoffs={self.chroma_offset}:crqpoffs={self.chroma_offset}"
        own = f"keyint=-1:scenecut=0:{alone}:{offsets}"
        return {"preset": "veryslow", "tune": "psnr", "crf": str(self.crf), "x265-params": own}

    def payload(self, packet: bytes) -> int:
        """NAL units without start codes, access unit delimiters and SEI."""
        return sum(len(unit) for unit in self.units(packet) if unit[0] >> 1 & 63 not in (35, 39, 40))


@dataclass(frozen=True)
class SvtAv1(Codec):
    """AV1 by SVT-AV1, which codes 4:2:0 only."""

    preset: int = 2
    """Speed: smaller is slower and better."""

    encoder = "libsvtav1"
    decoder = "libdav1d"
    formats = ("yuv420p", "yuv420p10le")
    smallest = 64
    largest_crf = 63

    def options(self) -> dict[str, str]:
        own = "tune=1:keyint=-1:scd=0:enable-tf=0:lp=1"
        return {"preset": str(self.preset), "crf": str(self.crf), "svtav1-params": own}

    def payload(self, packet: bytes) -> int:
        """Without the temporal delimiter, which says nothing once packets have boundaries."""
        return len(packet.removeprefix(b"\x12\x00"))


@dataclass(frozen=True)
class DoubledSvtAv1(SvtAv1):
    """SVT-AV1 of frames twice as high and wide: its halved colour planes then hold the frames' full resolution.

    4:2:0 alone caps small frames at about 36 dB; at most rates this gains more than the luma samples cost.
    """

    smallest = 32

    @property
    def name(self) -> str:
        return f"{super().name}-doubled"

    def encode(self, frames: np.ndarray, fps: float = 25.0) -> Encoded:
        self._check(frames)
        encoded = super().encode(doubled(frames), fps)
        return encoded._replace(frames=halved(encoded.frames))


def _fill(plane: av.video.plane.VideoPlane, picture: np.ndarray) -> None:
    """Copies (h, w) into a plane, whose lines may be longer."""
    lines = np.zeros((plane.height, plane.line_size // picture.itemsize), picture.dtype)
    lines[: picture.shape[0], : picture.shape[1]] = picture
    plane.update(lines.tobytes())


def _read(plane: av.video.plane.VideoPlane, samples: type[np.unsignedinteger]) -> np.ndarray:
    lines = np.frombuffer(memoryview(plane), samples).reshape(plane.height, -1)
    return lines[:, : plane.width].copy()


def _decode(name: str, packets: Iterable[av.Packet]) -> list[np.ndarray]:
    """Planes (t, h, w) of all frames in the order in which they are shown."""
    import av

    context: Any = av.CodecContext.create(name, "r")
    context.thread_count = 1
    frames = [frame for packet in [*packets, None] for frame in context.decode(packet)]
    frames.sort(key=lambda frame: frame.pts)
    samples: type[np.unsignedinteger] = np.uint16 if frames[0].format.components[0].bits > 8 else np.uint8
    pictures = [[_read(plane, samples) for plane in frame.planes] for frame in frames]
    return [np.stack(plane) for plane in zip(*pictures, strict=True)]
