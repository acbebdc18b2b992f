"""Films: whatever FFmpeg decodes, frame by frame. They have no actions and no rewards."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.files_below import files_below
from vqvideo.data.formats import Facts, Moment
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer

    from vqvideo.data.config import ImportConfig

ENDINGS = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv"),
        *(".flv", ".f4v", ".ogv", ".ogg", ".3gp", ".vob", ".y4m", ".mjpeg"),
    }
)
"""Of the files in a folder that are taken for films. A file that is named itself may end in anything."""
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpeg,mpegvideo,mpegts,asf,flv,ogg,yuv4mpegpipe,mjpeg,nut,h264,hevc"
)
"""What is opened, whatever a file is called: FFmpeg also knows lists of other files and addresses, and opens these."""

logger = logging.getLogger(__name__)


class Videos:
    """All films below a folder, in the order of their names; hidden ones (".name") are left out. Or one file."""

    episodes = False
    missing = ("ends", "rewards")
    notes: tuple[str, ...] = ()

    def __init__(self, options: ImportConfig) -> None:
        self.path, self.action_space = options.source, ActionSpace.none()
        self.names = film_names(self.path)

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether there are films."""
        return path.suffix.lower() in ENDINGS if path.is_file() else bool(files_below(path, ENDINGS)[0])

    def size_of(self, name: str) -> int:
        """As `Reader`."""
        return place_of(self.path, name).stat().st_size

    def open(self, name: str) -> Film:
        """As `Reader`."""
        return Film(place_of(self.path, name))


def film_names(path: Path) -> list[str]:
    """The films below a folder, relative to it, or the one file. InputError if there is none."""
    if path.is_file():
        return [path.name]
    films, listed = files_below(path, ENDINGS)
    if not films:
        found = f"no videos in it ({listed or 'it is empty'})" if path.is_dir() else "no such file or folder"
        raise InputError(f"{path}: {found}; videos end in {', '.join(sorted(ENDINGS))}")
    if listed:
        logger.info("%s: left out %s, which are no videos", path, listed)
    return [film.as_posix() for film in films]


def place_of(path: Path, name: str) -> Path:
    """Where the recording of a name is."""
    return path if path.is_file() else path / name


class Film:
    """One file with a video stream, of which the first one counts. Opening it looks at every packet and decodes the
    first frame.

    Args:
        path: the file.
        every_frame: refuse to leave out frames that cannot be decoded, since those that follow would be taken for them.

    Raises:
        InputError: it has no video stream, or no frame can be decoded.
    """

    ends = ()

    def __init__(self, path: Path, *, every_frame: bool = False) -> None:
        self.path, self.every_frame = path, every_frame
        with self._opened() as container:
            stream = container.streams.video[0]
            # Counted, since many containers do not say how many there are, and some are wrong about it.
            held, shown, times = _counted(container.demux(stream))
            rate, said, unit = stream.average_rate or stream.guessed_rate, stream.frames, stream.time_base
        self.times = times if len(times) == shown else times[:0]
        """When each frame is shown, in the stream's own unit; empty where the container does not say it."""
        first = next(self.frames(), None)
        if not held or first is None:
            raise InputError(f"{path}: it has a video stream, but no frame that can be decoded")
        notes = [] if said <= held else [f"it says that it has {said} frames and holds {held}: cut off?"]
        gaps = np.diff(times) * float(unit or 0)
        if len(gaps) and gaps.max() > 2 * np.median(gaps):
            notes.append(
                f"its frame rate varies (from one frame to the next it is {1000 * gaps.min():.0f} to "
                f"{1000 * gaps.max():.0f} ms): frames are taken as they follow each other"
            )
        self.facts = Facts(shown, float(rate) if rate else None, first.shape[:2], tuple(notes))

    def moments(self, first: int = 0) -> Iterator[Moment]:
        """As `Recording`."""
        for frame in self.frames(first):
            yield Moment(frame)

    def frames(self, first: int = 0) -> Iterator[NDArray[np.uint8]]:
        """As `Pictures`."""
        with self._opened() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            start, upright = self._sought(container, first), _Upright(stream.sample_aspect_ratio or Fraction(1))
            for number, frame in enumerate(container.decode(stream), start):
                if self.every_frame:
                    self._check_place(number, frame.pts)
                if number >= first:
                    yield upright(frame)

    def _sought(self, container: InputContainer, first: int) -> int:
        """Goes to where decoding can begin before a frame; returns the number of the frame that comes next."""
        stream = container.streams.video[0]
        if not 0 < first < len(self.times) or (np.diff(self.times) <= 0).any():
            return 0
        container.seek(int(self.times[first]), stream=stream)
        reached = next(container.decode(stream), None)
        # Where a container does not keep its word, all that comes before is decoded.
        number = self._number(reached.pts) if reached else None
        number = number if number is not None and number <= first else 0
        container.seek(int(self.times[number]), stream=stream)
        return number

    def _number(self, time: int | None) -> int | None:
        """Of the frame that is shown at a time; None if there is none."""
        found = int(np.searchsorted(self.times, time)) if time is not None else len(self.times)
        return found if found < len(self.times) and self.times[found] == time else None

    def _check_place(self, number: int, time: int | None) -> None:
        """Decoders leave out what is damaged, without a word."""
        if time is not None and number < len(self.times) and time != self.times[number]:
            raise InputError(
                f"{self.path}: frame {number} cannot be decoded, and the rows behind it would be displaced"
            )

    @contextmanager
    def _opened(self) -> Iterator[InputContainer]:
        import av

        # Of a film in pieces, or of a list of addresses, nothing is fetched.
        options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
        try:
            # The path with its folder: a bare name such as "http:x" would be an address.
            with av.open(str(self.path.absolute()), options=options) as container:
                if not container.streams.video:
                    raise InputError(f"{self.path}: no video in it, only {_kinds(container) or 'nothing'}")
                yield container
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{self.path}: not a video that can be read ({error.strerror or error})") from error


def _counted(packets: Iterator[Packet]) -> tuple[int, int, NDArray[np.int64]]:
    """How many packets there are, how many of their frames are shown, and when those are, as far as they say it, in
    order.
    """
    held, shown, times = 0, 0, array("q")
    for packet in packets:
        if packet.size:
            held += 1
            shown += not packet.is_discard
            if not packet.is_discard and packet.pts is not None:
                times.append(packet.pts)
    return held, shown, np.sort(np.array(times, np.int64))


def _kinds(container: InputContainer) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams}))


class _Upright:
    """Any pixel format as 8-bit RGB: pixels of another `shape` (width to height) made square, turned as the camera was
    held, transparent parts on white.
    """

    def __init__(self, shape: Fraction) -> None:
        from av.video.reformatter import VideoReformatter

        self.shape = shape
        # One for all frames: its preparations, with threads of its own, take longer than a small frame.
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        transparent = any(component.is_alpha for component in frame.format.components)
        width = max(1, round(frame.width * self.shape))
        form = "rgba" if transparent else "rgb24"
        pixels = self._reformatter.reformat(frame, width=width, format=form).to_ndarray()
        if transparent:
            colour, alpha = pixels[..., :3].astype(np.uint16), pixels[..., 3:].astype(np.uint16)
            pixels = (colour * alpha + 255 * (255 - alpha) + 127) // 255
        # Degrees against the clock.
        return np.ascontiguousarray(np.rot90(pixels.astype(np.uint8, copy=False), round(frame.rotation / 90)))


class FilmPiece:
    """Some frames of a film, the `Pictures` of one of several recordings in it.

    Args:
        film: it.
        first: number of the first frame.
        count: how many there should be; there are fewer where the film ends.
        notes: what a user should know.
    """

    def __init__(self, film: Film, first: int, count: int, notes: tuple[str, ...] = ()) -> None:
        self.film, self.first = film, first
        held = min(count, max(0, film.facts.frames - first))
        self.facts = replace(film.facts, frames=held, notes=(*film.facts.notes, *notes))

    def frames(self, first: int = 0) -> Iterator[NDArray[np.uint8]]:
        """As `Pictures`."""
        yield from islice(self.film.frames(self.first + first), max(0, self.facts.frames - first))
