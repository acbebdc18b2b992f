"""ArrayRecord files of jasmine and jafar: a record is a pickle with the bytes of all frames and an action for each.

The pickles are read without unpickling (`plain_pickle`). Action t leads from frame t.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.config import height_and_width
from vqvideo.data.files_below import files_called
from vqvideo.data.formats.array_records import ARRAY_RECORD, ArrayRecords
from vqvideo.data.formats.columns import rows_of
from vqvideo.data.formats.pictures import ArrayPictures, Sliced
from vqvideo.data.formats.plain_pickle import plain
from vqvideo.data.formats.rows import Pictures, RowReader, Rows
from vqvideo.errors import InputError
from vqvideo.storage.files import read_small

if TYPE_CHECKING:
    from vqvideo.data.config import ImportConfig

METADATA = "metadata.json"
_MAX_METADATA = 2**26
_VIDEO, _LENGTH = "raw_video", "sequence_length"
_SIDES = (("height", "width"), ("image_height", "image_width"), ("frame_height", "frame_width"), ("image_h", "image_w"))
"""How metadata may call them."""
_RATIO = 2.5
"""Of the longer side to the shorter one, of what may be a frame."""
_CLEARLY = 0.7
"""Share of the differences between rows by which another shape than a square must be better."""


class RawVideos(RowReader):
    """The records of all files below a folder, or of one."""

    def __init__(self, options: ImportConfig) -> None:
        super().__init__(options)
        self._places: dict[str, tuple[ArrayRecords, int]] = {}
        self._broken: dict[str, InputError] = {}
        for shard in _shards(self.path):
            inside = "" if shard == self.path else f"{shard.relative_to(self.path).as_posix()}/"
            records = ArrayRecords(shard)
            self._places |= {f"{inside}record {number}": (records, number) for number in range(len(records))}
            if records.broken:
                # Told when it is opened, so that it can be skipped.
                self._broken[inside.rstrip("/") or shard.name] = records.broken
        self.names = [*self._places, *self._broken]
        if not self.names:
            raise InputError(f"{self.path}: no records in it, expected a video in each")
        self._last: tuple[str, RawVideo] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # For other processes, which read for themselves.
        return self.__dict__ | {"_last": None}

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether there are ArrayRecord files."""
        return bool(files_called(path, ARRAY_RECORD))

    def size_of(self, name: str) -> int:
        """Bytes of the file."""
        return self._places[name][0].size if name in self._places else 0

    def pictures(self, name: str) -> Pictures:
        """As `RowReader`."""
        video, where = self.video(name), self.where(name)
        (h, w), notes = self._frame_size(name, video)
        if video.length * h * w * 3 != len(video.content):
            raise InputError(
                f"{where}: {_VIDEO} has {len(video.content)} bytes, expected {video.length} frames of {h} x {w} x 3: "
                "--source-size HxW"
            )
        return ArrayPictures(_Frames(self, name, (video.length, h, w, 3)), f"{where}: {_VIDEO}", notes=notes)

    def rows(self, name: str) -> Rows:
        """As `RowReader`."""
        return rows_of(self.video(name).columns, self.options.columns, self.where(name))

    def video(self, name: str) -> RawVideo:
        """A record. Only the last one stays in memory."""
        if name in self._broken:
            raise self._broken[name]
        if self._last is None or self._last[0] != name:
            self._last = None
            records, number = self._places[name]
            where = self.where(name)
            self._last = name, RawVideo(plain(records.read(number), where), where)
        return self._last[1]

    def _frame_size(self, name: str, video: RawVideo) -> tuple[tuple[int, int], tuple[str, ...]]:
        """(h, w) of its frames, and what to say of it."""
        if self.options.source_size is not None:
            return height_and_width(self.options.source_size), ()
        said = _told(video.numbers) or self._told_beside(self._places[name][0].path.parent)
        return (said, ()) if said else _looks_like(video)

    def _told_beside(self, folder: Path) -> tuple[int, int] | None:
        """What metadata say in the folder of a file, or in the one above it, where those of all splits are."""
        for path in (folder / METADATA, folder.parent / METADATA):
            if path.is_file():
                try:
                    # Averages of nothing are NaN there, which is no JSON.
                    said = _told(json.loads(read_small(path.resolve(), _MAX_METADATA)))
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{path}: cannot be read ({error!s:.200})") from error
                if said:
                    return said
        return None


class RawVideo:
    """What a record holds.

    Args:
        record: the value of the pickle.
        where: begins errors.
    """

    def __init__(self, record: Any, where: str) -> None:
        self.where = where
        found = list(record)[:12] if isinstance(record, dict) else type(record).__name__
        if not isinstance(record, dict) or not isinstance(record.get(_VIDEO), bytes):
            raise InputError(f"{where}: found {found}, expected a dict with {_VIDEO} as bytes and {_LENGTH}")
        self.content: bytes = record[_VIDEO]
        self.numbers = {name: int(value) for name, value in record.items() if isinstance(value, int | np.integer)}
        """Those of the whole record."""
        self.length = self.numbers.get(_LENGTH, 0)
        """Frames."""
        if self.length < 1 or len(self.content) % (3 * self.length) or not self.content:
            raise InputError(
                f"{where}: {len(self.content)} bytes of {_VIDEO} and the {_LENGTH} {self.numbers.get(_LENGTH)}, "
                "expected so many frames of h x w x 3 bytes"
            )
        arrays = ((name, _column(value)) for name, value in record.items() if name != _VIDEO)
        self.columns = {name: array for name, array in arrays if array is not None}
        """What has a number per frame, by name."""

    @property
    def pixels(self) -> int:
        """Of a frame."""
        return len(self.content) // (3 * self.length)


class _Frames:
    """The frames of a record, which is read anew where another one was read since."""

    def __init__(self, reader: RawVideos, name: str, shape: tuple[int, ...]) -> None:
        self.reader, self.name, self.shape = reader, name, shape

    def __iter__(self) -> Iterator[NDArray[Any]]:
        video = np.frombuffer(self.reader.video(self.name).content, np.uint8)
        return iter(Sliced(video.reshape(self.shape)))


def _shards(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = files_called(path, ARRAY_RECORD)
    if not found:
        said = "no ArrayRecord files in it" if path.is_dir() else "no such file or folder"
        raise InputError(f"{path}: {said}, expected files such as data_0000.array_record")
    return found


def _column(value: Any) -> NDArray[Any] | None:
    """An array, or a list of numbers or of arrays of them, as an array; None for all else."""
    if isinstance(value, np.ndarray):
        return value if value.ndim else None
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(one, int | float | np.number | np.bool_) for one in value):
        try:
            return np.array(value)
        except OverflowError:
            return None
    shapes = {one.shape if isinstance(one, np.ndarray) else None for one in value}
    # The same array may stand in a list a million times.
    small = None not in shapes and len(shapes) == 1 and value[0].size * len(value) < 2**24
    return np.stack(value) if small else None


# ---------------------------------------------------------------- the shape of frames


def _told(said: Any) -> tuple[int, int] | None:
    """(h, w) in what may say them."""
    if not isinstance(said, Mapping):
        return None
    for names in _SIDES:
        h, w = (said.get(name) for name in names)
        if isinstance(h, int) and isinstance(w, int) and min(h, w) > 0:
            return h, w
    return None


def _looks_like(video: RawVideo) -> tuple[tuple[int, int], tuple[str, ...]]:
    """A square, unless neighbouring rows are clearly more alike in another shape: 14400 pixels may also be 90 x 160.

    Raises:
        InputError: it is no square, or does not look like one.
    """
    pixels, side = video.pixels, isqrt(video.pixels)
    heights = [h for h in range(1, pixels + 1 if pixels < 4 else side * 3) if pixels % h == 0]
    shapes = [(h, pixels // h) for h in heights if max(h * h, pixels) <= _RATIO * min(h * h, pixels)]
    scores = {shape: _roughness(video, shape) for shape in shapes}
    best = min(scores, key=lambda shape: scores[shape], default=(side, max(1, pixels // side)))
    square = (side, side)
    if square in scores and scores[best] >= _CLEARLY * scores[square]:
        return square, (f"nothing says how large frames are: {side} x {side} is assumed (--source-size HxW)",)
    raise InputError(
        f"{video.where}: nothing says how large frames are; of {pixels} pixels they look like {best[0]} x {best[1]}: "
        f"--source-size {best[0]}x{best[1]}, or another height x width"
    )


def _roughness(video: RawVideo, shape: tuple[int, int]) -> float:
    """How much neighbouring rows differ, in the first, the middle and the last frame."""
    frames = np.frombuffer(video.content, np.uint8).reshape(video.length, *shape, 3)
    shown = frames[[0, video.length // 2, -1]].astype(np.int16)
    return float(np.abs(np.diff(shown, axis=1)).mean()) if shape[0] > 1 else 0.0
