"""LeRobot datasets of versions 2 and 3: rows of numbers in Parquet, frames in films or as images among the rows.

A row is a frame, with the action that was taken there; nothing shows where the last action led. Where `is_last` marks
the last row of an episode, as in `vqvideo.data.exporting.lerobot` and in datasets that were RLDS, it has a frame alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqvideo.data.formats.columns import chosen, rows_of
from vqvideo.data.formats.lerobot_layout import INFO, Episode, Info, episodes
from vqvideo.data.formats.parquet import ParquetRows
from vqvideo.data.formats.pictures import EncodedPictures, chosen_cameras, side_by_side
from vqvideo.data.formats.rows import Pictures, RowReader, Rows
from vqvideo.data.formats.tables import Table
from vqvideo.data.formats.videos import Film, FilmPiece
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace
from vqvideo.storage.files import parse_json, read_small

if TYPE_CHECKING:
    from vqvideo.data.config import ImportConfig

_LAST, _EPISODE = "is_last", "episode_index"
_OURS = Path("meta", "vqvideo.json")


class LeRobot(RowReader):
    """The episodes of a dataset, given by its folder."""

    def __init__(self, options: ImportConfig) -> None:
        super().__init__(options)
        self.info = Info.read(self.path)
        self.episodes_by_name = {f"episode {one.number}": one for one in episodes(self.info)}
        self.names = list(self.episodes_by_name)
        found = self.info.cameras("video") + self.info.cameras("image")
        asked = options.columns.get("frames", options.cameras)
        asked = [str(name) for name in (asked if isinstance(asked, list | tuple) else [asked])]
        self.cameras = chosen_cameras(found, asked, str(self.path))
        self._tables = _Latest()
        self._films: dict[Path, Film] = {}

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether its metadata lie there."""
        return (path / INFO).is_file()

    def size_of(self, name: str) -> int:
        """Of its rows, since files grow when episodes are added."""
        return self.episodes_by_name[name].length

    def where(self, name: str) -> str:
        """As `RowReader`."""
        return f"{self.path}: {name}"

    def space(self) -> ActionSpace | None:
        """The one of the store that was exported, if it was one."""
        path = (self.path / _OURS).resolve()
        if not path.is_file() or "actions" in self.options.columns:
            return None
        said = parse_json(read_small(path), str(self.path / _OURS))
        return (
            ActionSpace.from_json(said["action_space"]) if isinstance(said, dict) and "action_space" in said else None
        )

    # ---------------------------------------------------------------- rows

    def rows(self, name: str) -> Rows:
        """As `RowReader`."""
        episode = self.episodes_by_name[name]
        first, after = self._run(episode, name)
        table = {column: values[first:after] for column, values in self._table(episode).items() if column != _EPISODE}
        last = table.pop(_LAST, None)
        if last is not None and len(last) and last[-1]:
            table = {column: values[:-1] for column, values in table.items()}
        return rows_of(table, self._asked, self.where(name))

    def _run(self, episode: Episode, name: str) -> tuple[int, int]:
        """First row of an episode in its file, and the one after the last."""
        found = np.flatnonzero(self._table(episode)[_EPISODE] == episode.number)
        begin = int(found[0]) if len(found) else 0
        if not np.array_equal(found, np.arange(begin, begin + episode.length)):
            raise InputError(
                f"{self.where(name)}: {len(found)} rows of it in {episode.rows}, expected {episode.length} that follow "
                "each other, as the metadata say"
            )
        return begin, begin + episode.length

    def _table(self, episode: Episode) -> Table:
        """All columns that count, of the file in which an episode lies."""
        return self._tables.of(episode.rows, [*self._columns, _EPISODE])

    @cached_property
    def _columns(self) -> list[str]:
        """Those of numbers that have a role, and `is_last`."""
        usable = [column for column, one in self.info.features.items() if one.get("dtype") not in ("video", "image")]
        roles = chosen(usable, self._asked, str(self.path))
        return [column for columns in roles.values() for column in columns] + [_LAST] * (_LAST in usable)

    @property
    def _asked(self) -> dict[str, Any]:
        return {**self.options.columns, "frames": None}

    # ---------------------------------------------------------------- frames

    def pictures(self, name: str) -> Pictures:
        """As `RowReader`."""
        episode = self.episodes_by_name[name]
        return side_by_side([self._view(episode, camera, name) for camera in self.cameras], self.where(name))

    def _view(self, episode: Episode, camera: str, name: str) -> Pictures:
        if camera in episode.films:
            return self._piece(episode, camera)
        first, after = self._run(episode, name)
        images = _Images(ParquetRows(episode.rows), camera, first, after)
        return EncodedPictures(images, after - first, f"{self.where(name)}: {camera}", self.info.fps)

    def _piece(self, episode: Episode, camera: str) -> FilmPiece:
        """The frames of an episode in a film: counted, and by the metadata's time only where the counts differ."""
        path, begin = episode.films[camera].path, episode.films[camera].begin
        if path not in self._films:
            self._films[path] = Film(path, every_frame=True)
        film, sharing = self._films[path], self._sharing[path]
        if len(sharing) == 1:
            return FilmPiece(film, 0, film.facts.frames)
        rows = sum(one.length for one, _ in sharing)
        if film.facts.frames == rows:
            before = (one.length for one, start in sharing if (start, one.number) < (begin, episode.number))
            return FilmPiece(film, sum(before), episode.length)
        first = round(begin * (self.info.fps or film.facts.fps or 0))
        note = (
            f"{path.relative_to(self.path)} has {film.facts.frames} frames and its episodes {rows} rows: each begins "
            "where the metadata say"
        )
        return FilmPiece(film, first, episode.length, (note,))

    @cached_property
    def _sharing(self) -> dict[Path, list[tuple[Episode, float]]]:
        """The episodes in each film, and the second in which they begin."""
        found: dict[Path, list[tuple[Episode, float]]] = {}
        for episode in self.episodes_by_name.values():
            for camera in self.cameras:
                if camera in episode.films:
                    film = episode.films[camera]
                    found.setdefault(film.path, []).append((episode, film.begin))
        return found


class _Images:
    """The images of some rows, which can be gone through again."""

    def __init__(self, rows: ParquetRows, camera: str, first: int, after: int) -> None:
        self.rows, self.camera, self.first, self.after = rows, camera, first, after

    def __iter__(self) -> Iterator[bytes]:
        return self.rows.images(self.camera, self.first, self.after)


class _Latest:
    """The table of the file that was asked for last: episodes that share a file follow each other."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._table: Table = {}

    def of(self, path: Path, columns: Iterable[str]) -> Table:
        """The columns of a file."""
        if path != self._path:
            self._table, self._path = ParquetRows(path).table(list(columns)), path
        return self._table
