"""Where in a LeRobot dataset each episode lies: v2.0 and v2.1 keep it in files of its own, v3.0 many in a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqvideo.data.files_below import files_below
from vqvideo.data.formats.parquet import ParquetRows
from vqvideo.data.formats.tables import json_lines
from vqvideo.errors import InputError
from vqvideo.storage.files import parse_json, read_small

INFO = Path("meta", "info.json")
_FIELD = re.compile(r"\{(\w+)(?::0(\d{1,2})d)?\}")
_NUMBERED = ("chunk_index", "file_index")


@dataclass(frozen=True)
class Film:
    """A piece of a film."""

    path: Path
    begin: float
    """Seconds before it."""


@dataclass(frozen=True)
class Episode:
    """Where an episode lies."""

    number: int
    length: int
    """Rows."""
    rows: Path
    films: Mapping[str, Film]
    """By camera."""


@dataclass(frozen=True)
class Info:
    """What `meta/info.json` tells."""

    folder: Path
    """Of the dataset."""
    said: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Info:
        """That of the dataset in a folder. InputError for something else."""
        # In the cache of the Hub files are links.
        path = (folder / INFO).resolve()
        said = parse_json(read_small(path), str(folder / INFO)) if path.is_file() else None
        if not isinstance(said, dict) or not isinstance(said.get("features"), dict):
            raise InputError(f"{folder}: no {INFO} with features, expected a LeRobot dataset")
        return cls(folder, said)

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """By the names of their columns."""
        return {name: one for name, one in self.said["features"].items() if isinstance(one, dict)}

    def cameras(self, kind: str) -> list[str]:
        """Of the features those with pictures: "video" or "image"."""
        return [
            name for name, one in self.features.items() if one.get("dtype") == kind and not _tells(one, "is_depth_map")
        ]

    @property
    def fps(self) -> float | None:
        """Frames per second."""
        fps = self.said.get("fps")
        return float(fps) if isinstance(fps, int | float) and 0 < fps < 1e6 else None

    def place(self, template: str, **values: Any) -> Path:
        """The file that a template of the dataset, "data_path" or "video_path", names. InputError unless it lies in the
        dataset's folder.
        """
        said, wanted = self.said.get(template), ", ".join(values)

        def filled(found: re.Match[str]) -> str:
            name, digits = found.groups()
            if name not in values:
                raise InputError(f"{self.folder / INFO}: {template} has {{{name}}}, known: {wanted}")
            return str(values[name]).zfill(int(digits or 0))

        name = _FIELD.sub(filled, said) if isinstance(said, str) else ""
        if not name or Path(name).is_absolute() or ".." in Path(name).parts or not name.isprintable():
            raise InputError(f"{self.folder / INFO}: {template} is {said!r:.100}, expected a file in this folder")
        return self.folder / name


def _tells(feature: Mapping[str, Any], what: str) -> bool:
    """Whether a feature's info or, in older versions, video_info says so."""
    info = feature.get("info") or feature.get("video_info")
    return isinstance(info, dict) and bool(info.get(f"video.{what}") or info.get(what))


def episodes(info: Info) -> list[Episode]:
    """All episodes, in the order of their numbers.

    Raises:
        InputError: an unknown version, or metadata that are missing or lie.
    """
    version = str(info.said.get("codebase_version", ""))
    readers = {"v2": _of_v2, "v3": _of_v3}
    if version[:2] not in readers:
        raise InputError(
            f"{info.folder / INFO}: codebase_version {version!r:.20}, expected v2.0, v2.1 or v3.0; LeRobot's own "
            "scripts convert older ones"
        )
    found = sorted(readers[version[:2]](info), key=lambda episode: episode.number)
    if len({episode.number for episode in found}) < len(found):
        raise InputError(f"{info.folder}: its metadata have several episodes of the same number")
    return found


def _of_v2(info: Info) -> Iterator[Episode]:
    path = info.folder / "meta" / "episodes.jsonl"
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected the episodes of a LeRobot dataset v2")
    size = _whole(info.said.get("chunks_size"), f"{info.folder / INFO}: chunks_size")
    for line, record in enumerate(json_lines(path), 1):
        where = f"{path}, line {line}"
        number, length = (_whole(record.get(key), f"{where}: {key}") for key in ("episode_index", "length"))
        values = {"episode_chunk": number // max(1, size), "episode_index": number}
        films = {name: Film(info.place("video_path", video_key=name, **values), 0.0) for name in info.cameras("video")}
        yield Episode(number, length, info.place("data_path", **values), films)


def _of_v3(info: Info) -> Iterator[Episode]:
    folder = info.folder / "meta" / "episodes"
    files, _ = files_below(folder, frozenset({".parquet"}))
    if not files:
        raise InputError(f"{folder}: no Parquet files in it, expected the episodes of a LeRobot dataset v3")
    cameras = info.cameras("video")
    names = ["episode_index", "length", *(f"data/{name}" for name in _NUMBERED)]
    names += [f"videos/{camera}/{name}" for camera in cameras for name in (*_NUMBERED, "from_timestamp")]
    for name in files:
        for row, record in enumerate(ParquetRows(folder / name).records(names)):
            where = f"{folder / name}, row {row}"
            wholes = {key: _whole(record[key], f"{where}: {key}") for key in names if not key.endswith("timestamp")}
            films = {}
            for camera in cameras:
                numbers = {key: wholes[f"videos/{camera}/{key}"] for key in _NUMBERED}
                begin = record[f"videos/{camera}/from_timestamp"]
                if not isinstance(begin, float) or not 0 <= begin < 1e9:
                    raise InputError(f"{where}: the film of {camera} begins at {begin!r:.40}, expected seconds")
                films[camera] = Film(info.place("video_path", video_key=camera, **numbers), begin)
            rows = info.place("data_path", **{key: wholes[f"data/{key}"] for key in _NUMBERED})
            yield Episode(wholes["episode_index"], wholes["length"], rows, films)


def _whole(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**48:
        raise InputError(f"{where} is {value!r:.40}, expected a whole number")
    return value
