"""The files of a LeRobot dataset, of which a new one begins when the last is large enough."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vqvideo.data.exporting.films import NEARLY, Film
from vqvideo.data.exporting.lerobot_features import FRAMES, schema
from vqvideo.data.exporting.lerobot_stats import FrameStats, Stats
from vqvideo.data.index import StoreMeta

if TYPE_CHECKING:
    import pyarrow

CHUNK_FILES, DATA_MB, VIDEO_MB = 1000, 100, 200
"""Files in a folder, and about how large they get."""
KEY_EVERY = 2
"""Clips are drawn at random: every frame is at most one after a frame that stands alone."""
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEOS = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


class Numbered:
    """The files of a template such as `DATA`, one after the other."""

    def __init__(self, folder: Path, template: str, megabytes: int) -> None:
        self._folder, self._template, self._bytes = folder, template, megabytes * 10**6
        self._count = 0

    @property
    def numbers(self) -> dict[str, int]:
        """Those of the file under way."""
        return dict(zip(("chunk_index", "file_index"), divmod(self._count - 1, CHUNK_FILES), strict=True))

    @property
    def path(self) -> Path:
        """Of the file under way."""
        return self._folder / self._template.format(**self.numbers, video_key=FRAMES)

    @property
    def full(self) -> bool:
        """Whether there is no file under way, or none that more should go into."""
        # Where an encoder still holds all frames, the file is not there yet.
        size = self.path.stat().st_size if self._count and self.path.exists() else 0
        return not self._count or size >= self._bytes

    def next(self) -> Path:
        """Begins the next file, whose name this is."""
        self._count += 1
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.path


class Taken(NamedTuple):
    """The frames of an episode, once they are written or ready to be."""

    record: dict[str, Any]
    """What stands in the episode's record."""
    pictures: list[dict[str, Any]] | None
    """What stands in its rows; None where frames are in films."""
    stats: Stats
    """Of the pixels."""


class FilmFrames:
    """Frames in films, many episodes behind each other."""

    encoding = NEARLY

    def __init__(self, folder: Path, meta: StoreMeta) -> None:
        self._files, self._meta = Numbered(folder, VIDEOS, VIDEO_MB), meta
        self._film: Film | None = None

    def take(self, frames: Iterable[NDArray[np.uint8]]) -> Taken:
        """Encodes the frames of an episode."""
        if self._film is None or self._files.full:
            self.close()
            self._film = Film(self._files.next(), self._meta.frame_size, self._meta.fps, self.encoding, KEY_EVERY)
        begin, seen = self._film.count, FrameStats()
        for block in frames:
            self._film.add(block)
            seen.add(block)
        times = {"from_timestamp": begin / self._meta.fps, "to_timestamp": self._film.count / self._meta.fps}
        record = {f"videos/{FRAMES}/{name}": value for name, value in (self._files.numbers | times).items()}
        return Taken(record, None, seen.stats())

    def close(self) -> None:
        """Completes the film under way."""
        film, self._film = self._film, None
        if film is not None:
            film.close()


class PictureFrames:
    """Frames as PNG among the rows."""

    encoding = None

    def take(self, frames: Iterable[NDArray[np.uint8]]) -> Taken:
        """Compresses the frames of an episode."""
        pictures: list[dict[str, Any]] = []
        seen = FrameStats()
        for block in frames:
            seen.add(block)
            pictures += [
                {"bytes": _png(frame), "path": f"frame-{len(pictures) + i:06d}.png"} for i, frame in enumerate(block)
            ]
        return Taken({}, pictures, seen.stats())

    def close(self) -> None:
        """Nothing is open."""


def _png(frame: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, format="PNG")
    return file.getvalue()


class Rows:
    """The rows in `data/`, a group for each episode."""

    def __init__(self, folder: Path, meta: StoreMeta, pictures: bool) -> None:
        self._files, self._schema = Numbered(folder, DATA, DATA_MB), schema(meta, pictures)
        self._writer: Any = None
        self.count = 0
        """Rows so far."""

    def add(self, columns: Mapping[str, NDArray[Any]], pictures: list[dict[str, Any]] | None) -> dict[str, Any]:
        """Writes the rows of an episode, columns (n, a) and pictures; returns what stands in its record."""
        import pyarrow
        from pyarrow import parquet

        if self._writer is None or self._files.full:
            self.close()
            self._writer = parquet.ParquetWriter(self._files.next(), self._schema)
        arrays = [
            pyarrow.array(pictures, field.type) if field.name == FRAMES else _arrow(columns[field.name], field.type)
            for field in self._schema
        ]
        self._writer.write_table(pyarrow.Table.from_arrays(arrays, schema=self._schema))
        begin, self.count = self.count, self.count + len(columns["index"])
        record = {f"data/{name}": value for name, value in self._files.numbers.items()}
        return record | {"dataset_from_index": begin, "dataset_to_index": self.count}

    def close(self) -> None:
        """Completes the file under way."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def _arrow(values: NDArray[Any], kind: pyarrow.DataType) -> pyarrow.Array:
    """A column (n, a) as numbers or, if `kind` says so, as lists of numbers."""
    import pyarrow

    numbers = pyarrow.array(values.ravel())
    return (
        pyarrow.FixedSizeListArray.from_arrays(numbers, type=kind)
        if pyarrow.types.is_fixed_size_list(kind)
        else numbers
    )
