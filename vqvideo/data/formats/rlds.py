"""Datasets of RLDS as TFDS stores them (Open X-Embodiment, ...), without TensorFlow: a record for each episode.

A step holds an observation, the action that leads from it, and the reward of that action. The last step of an episode
(is_last) only holds an observation; is_terminal says there that the environment ended, and not only the recording.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from vqvideo.data.action_inference import MOST_CATEGORIES
from vqvideo.data.files_below import files_called
from vqvideo.data.formats.array_records import ARRAY_RECORD, ArrayRecords
from vqvideo.data.formats.columns import chosen, rows_of
from vqvideo.data.formats.example import features_of
from vqvideo.data.formats.pictures import EncodedPictures, chosen_cameras, side_by_side
from vqvideo.data.formats.rlds_episode import FLAGS, Episode, Table
from vqvideo.data.formats.rows import LaidRecording, Pictures, RowReader, Rows
from vqvideo.data.formats.tfds_features import FILE, Declared, declared
from vqvideo.data.formats.tfrecord import TFRECORD, TFRecords
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

if TYPE_CHECKING:
    from vqvideo.data.config import ImportConfig

_SHARD = re.compile(f"{TFRECORD.pattern}|{ARRAY_RECORD.pattern}")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_NONE = "no shards of records in it, expected files such as name-train.tfrecord-00000-of-00001"


class Records(Protocol):
    """The records of a shard."""

    size: int
    """Bytes on the disk."""
    broken: InputError | None
    """What is wrong behind the records that can be read."""

    def __len__(self) -> int: ...

    def read(self, number: int) -> bytes:
        """The data of a record. InputError if they are damaged."""
        ...


class _Place(NamedTuple):
    records: Records
    number: int
    features: Mapping[str, Declared]


class RLDS(RowReader):
    """The episodes of all shards below a folder, such as that of a version of a dataset; or of one shard."""

    def __init__(self, options: ImportConfig) -> None:
        super().__init__(options)
        self._places: dict[str, _Place] = {}
        self._broken: dict[str, InputError] = {}
        for shard in _shards(self.path):
            self._add(shard)
        self.names = [*self._places, *self._broken]
        if not self.names:
            raise InputError(f"{self.path}: no records in it, expected an episode in each")
        self._last: tuple[str, Episode] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # For other processes, which read for themselves.
        return self.__dict__ | {"_last": None}

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether there are shards; those of ArrayRecord, which may hold anything, with features beside them."""
        return bool(_listed(path))

    def _add(self, shard: Path) -> None:
        inside = "" if shard == self.path else f"{shard.relative_to(self.path).as_posix()}/"
        try:
            said = declared(shard.parent)
        except InputError as error:
            self._broken[f"{inside}{FILE}"] = error
            return
        records = ArrayRecords(shard) if ARRAY_RECORD.search(shard.name) else TFRecords(shard)
        for number in range(len(records)):
            self._places[f"{inside}episode {number}"] = _Place(records, number, said)
        if records.broken:
            # Told when it is opened, so that it can be skipped.
            self._broken[f"{inside}episode {len(records)}"] = records.broken

    def size_of(self, name: str) -> int:
        """Bytes of the shard."""
        return self._places[name].records.size if name in self._places else 0

    def open(self, name: str) -> LaidRecording:
        """As `Reader`."""
        found, episode = super().open(name), self._episode(name)
        reward = self._columns(episode).get("rewards")
        if self._cut(episode) and reward and (lost := float(np.ravel(episode.column(reward[0]))[-1])):
            note = (
                f"the last step has the reward {lost:g}, which means nothing in RLDS: left out (--align repeat-last "
                "keeps it, with its action)"
            )
            found.facts = replace(found.facts, notes=(*found.facts.notes, note))
        return found

    def pictures(self, name: str) -> Pictures:
        """As `RowReader`."""
        where, episode = self.where(name), self._episode(name)
        cameras = self._cameras(episode)
        views = [
            EncodedPictures(_Images(self, name, camera), episode.count(camera), f"{where}: {camera}")
            for camera in cameras
        ]
        return side_by_side(views, where)

    def rows(self, name: str) -> Rows:
        """As `RowReader`."""
        episode = self._episode(name)
        rows = rows_of(Table(episode), self.options.columns, episode.where)
        if self._leads == "to" or self.options.align == "repeat-last":
            return rows
        if rows.terminated is not None and self._columns(episode)["ends"][0] in FLAGS:
            # Said of the step to which the action led.
            rows = replace(rows, terminated=np.append(rows.terminated[1:], False))
        if not self._cut(episode):
            return rows
        return Rows(**{"actions": None, **{column: values[:-1] for column, values in rows.columns.items()}})

    def space(self) -> ActionSpace | None:
        """What the features say of bounds or choices, unless the user says which columns the actions are."""
        return None if "actions" in self.options.columns else _space(list(self._acting.values()))

    @property
    def notes(self) -> tuple[str, ...]:
        """As `Reader`."""
        several = ", ".join(self._acting) if len(self._acting) > 1 else ""
        said = f"an action is {several} beside each other (--columns actions=[{next(iter(self._acting), '')},...])"
        return (*super().notes, said) if several else super().notes

    @cached_property
    def _acting(self) -> dict[str, Declared]:
        """The columns of the actions, and what is said of them."""
        try:
            episode = self._episode(self.names[0])
            names = self._columns(episode).get("actions", [])
            # Only what fits to what is there is believed.
            return {name: episode.said(name) for name in names if len(episode.column(name))}
        except InputError:
            return {}  # it is told when it is opened

    def _columns(self, episode: Episode) -> dict[str, list[str]]:
        return chosen(Table(episode), self.options.columns, episode.where)

    def _cut(self, episode: Episode) -> bool:
        """Whether the last step has no action."""
        return self._leads == "from" and self.options.align != "repeat-last" and episode.ends_without_action

    def _cameras(self, episode: Episode) -> list[str]:
        if "frames" in self.options.columns:
            return self._columns(episode).get("frames") or chosen_cameras([], (), episode.where)
        if not episode.cameras and episode.images:
            raise InputError(
                f"{episode.where}: no pictures of three channels with 8 bits in it, only {', '.join(episode.images)}; "
                f"to take one of them: --columns frames={episode.images[0]}"
            )
        return chosen_cameras(episode.cameras, self.options.cameras, episode.where)

    def _episode(self, name: str) -> Episode:
        """The steps of a recording. Only those of the last one stay in memory."""
        if name in self._broken:
            raise self._broken[name]
        if self._last is None or self._last[0] != name:
            self._last = None
            records, number, said = self._places[name]
            where = self.where(name)
            self._last = name, Episode(features_of(records.read(number), where), said, where)
        return self._last[1]

    def images(self, name: str, camera: str) -> Iterator[bytes]:
        """The encoded images of a camera."""
        return map(bytes, self._episode(name).features[camera].items())


class _Images:
    """The encoded images of a camera, of which the record is read anew where another one was read since."""

    def __init__(self, reader: RLDS, name: str, camera: str) -> None:
        self.reader, self.name, self.camera = reader, name, camera

    def __iter__(self) -> Iterator[bytes]:
        return self.reader.images(self.name, self.camera)


def _shards(path: Path) -> list[Path]:
    """The files of records. InputError if there are none, or several versions of one dataset."""
    if path.is_file():
        return [path]
    found = _listed(path)
    if not found:
        raise InputError(f"{path}: {_NONE if path.is_dir() else 'no such file or folder'}")
    versions: dict[Path, list[Path]] = {}
    for folder in sorted({shard.parent for shard in found if (shard.parent / FILE).is_file()} - {path}):
        versions.setdefault(folder.parent, []).append(folder)
    for several in versions.values():
        if len(several) > 1 and all(_VERSION.fullmatch(folder.name) for folder in several):
            raise InputError(
                f"{path}: {len(several)} versions of a dataset ({', '.join(folder.name for folder in several)}): name "
                f"one, such as {several[-1]}"
            )
    return found


def _listed(path: Path) -> list[Path]:
    """A file, or those below a folder, if they look like shards: ArrayRecord may hold anything without features."""
    found = files_called(path, _SHARD)
    return [shard for shard in found if TFRECORD.search(shard.name) or shard.with_name(FILE).is_file()]


def _space(said: list[Declared]) -> ActionSpace | None:
    from gymnasium import spaces

    choices = said[0].choices if len(said) == 1 else None
    if choices and 0 < choices <= MOST_CATEGORIES:
        return ActionSpace.from_gymnasium(spaces.Discrete(choices))
    bounds = [np.full((one.size, 2), one.bounds) for one in said if one.bounds and one.dtype.startswith("float")]
    if not bounds or len(bounds) < len(said):
        return None
    low, high = np.concatenate(bounds).T
    return ActionSpace.from_gymnasium(spaces.Box(low, high, dtype=np.float64))
