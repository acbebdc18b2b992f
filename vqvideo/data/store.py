"""A folder of episodes: `meta.json`, `manifest.jsonl` and `episodes/000000.safetensors`, ...

An episode counts once its line stands in the manifest, and the line is written after the file is
durable: a killed recording loses the episode it was in, and nothing else.

Every line has a digest of its own, names the digest of its episode's file and that of the meta. So a damaged or
exchanged file is noticed. Lines that are lost as a whole leave files that no line names, which is at least a warning.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import logging
import math
import os
import re
import reprlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from vqvideo.data.episode import MAX_STEPS, Episode, EpisodeReader, check_frame_size, episode_to_bytes
from vqvideo.durable import (
    AnyPath,
    DiskError,
    FileRecord,
    canonical_json,
    check_regular,
    clean_temporaries,
    make_folder,
    seal,
    sync_folder,
    unseal,
    verify_file,
    write_file,
)
from vqvideo.errors import InputError
from vqvideo.locks import FolderLock
from vqvideo.spaces import ActionSpace

FORMAT_VERSION = 1
SPLITS = ("train", "held_out")
MAX_OPEN_READERS = 64

logger = logging.getLogger(__name__)
_META, _MANIFEST, _EPISODES = "meta.json", "manifest.jsonl", "episodes"
_EPISODE_NAME = re.compile(r"\d{6,9}\.safetensors")
_LINE_DIGITS = 16
_MAX_INDEX = 10**9 - 1
_MAX_META_BYTES = 2**20
_MAX_MANIFEST_BYTES = 2**26
"""A hundred thousand lines and more."""
_MAX_LINE_BYTES = 2**12
"""No line of ours comes near this: what is longer is not parsed."""
_FLAT_BYTES = 6
"""Of a step in its file, beside the action: a float32 reward and two flags, none of them compressed."""
Record = TypeVar("Record", "StoreMeta", "EpisodeEntry")


@dataclass(frozen=True)
class StoreMeta:
    """What all episodes of a store have in common."""

    env_id: str
    """The Gymnasium id or preset that was recorded."""
    env_spec: str | None
    """The environment's spec as JSON text, when it has one."""
    action_space: ActionSpace
    """The space of the recorded actions."""
    frame_size: tuple[int, int]
    """(h, w) in pixels."""
    fps: float
    """Stored frames per second, after action repeat."""
    action_repeat: int
    """How many environment steps one stored step holds its action for."""
    skip_first: int
    """Environment steps left out after each reset."""
    policy: str
    """Name of what chose the actions."""
    seed: int
    """The run's seed, from which each episode's seed follows."""
    held_out_every: int
    """Every n-th episode is held out; 0 for none."""
    versions: dict[str, str]
    """Versions of the packages that recorded the store."""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        check_frame_size(self.frame_size, "frame_size")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"fps: {self.fps}, expected a positive number")
        for name, least in (("action_repeat", 1), ("skip_first", 0), ("held_out_every", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: {getattr(self, name)}, expected at least {least}")

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON values from which `from_json` makes an equal meta."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["action_space"] = self.action_space.to_json()
        values["frame_size"] = list(self.frame_size)
        return values

    @classmethod
    def from_json(cls, record: dict[str, Any], where: str = _META) -> StoreMeta:
        """The meta that `to_json` described.

        Raises:
            InputError: missing or unknown keys, values of the wrong type, or another format version.
        """
        version = record.get("format_version")
        if version != FORMAT_VERSION:
            raise InputError(f"{where}: format version {version!r}, this version reads {FORMAT_VERSION}")
        values = dict(record)
        if "action_space" in record:
            values["action_space"] = ActionSpace.from_json(record["action_space"])
        if isinstance(record.get("frame_size"), list):
            values["frame_size"] = tuple(record["frame_size"])
        return _from_record(cls, values, where)


@dataclass(frozen=True)
class EpisodeEntry:
    """One line of the manifest."""

    index: int
    """Number of the episode; its seed follows from it."""
    file: str
    """Path inside the store."""
    length: int
    """T, the number of actions."""
    split: str
    """"train" or "held_out"."""
    seed: int
    """What the environment was reset with."""
    total_reward: float
    """Sum of the rewards."""
    terminated: bool
    """Whether the environment ended it; otherwise it was cut."""
    sha256: str
    """Digest of the file."""
    bytes: int
    """Size of the file."""
    meta: str = ""
    """Digest of the meta that it was recorded with; stores from before there was this field have none."""


_TYPES: dict[str, Any] = {
    "int": int,
    "float": (int, float),
    "str": str,
    "bool": bool,
    "str | None": (str, type(None)),
    "tuple[int, int]": tuple,
    "dict[str, str]": dict,
    "ActionSpace": ActionSpace,
}


def _from_record(kind: type[Record], values: dict[str, Any], where: str) -> Record:
    """A dataclass from its own keys, each of the declared type; only those with a default may be missing."""
    fields = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    needed = {field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}
    unknown, missing = sorted(set(values) - set(fields)), sorted(needed - set(values))
    if unknown or missing:
        raise InputError(f"{where}: unknown keys {unknown!s:.300}, missing keys {missing}")
    for name, value in values.items():
        annotation = fields[name]
        wrong_bool = isinstance(value, bool) and annotation != "bool"
        if (
            wrong_bool
            or not isinstance(value, _TYPES[annotation])
            or (annotation == "float" and not _fits_float(value))
        ):
            raise InputError(f"{where}: {name} is {reprlib.repr(value)}, expected {annotation}")
    return kind(**values)


def _fits_float(value: float) -> bool:
    """JSON knows whole numbers of any length."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def episode_file(index: int) -> str:
    """Path of an episode inside its store."""
    return f"{_EPISODES}/{index:06d}.safetensors"


# ---------------------------------------------------------------- manifest


def _to_line(entry: EpisodeEntry) -> bytes:
    return json.dumps(seal(vars(entry), _LINE_DIGITS)).encode() + b"\n"


def _from_line(line: bytes, where: str) -> EpisodeEntry:
    if len(line) > _MAX_LINE_BYTES:
        raise InputError(f"{where}: {len(line)} bytes, expected at most {_MAX_LINE_BYTES}; the file is damaged")
    entry = _from_record(EpisodeEntry, unseal(line, where), where)
    # Only this one name is ever opened, whatever else a manifest says.
    if not 0 <= entry.index <= _MAX_INDEX or entry.file != episode_file(entry.index):
        raise InputError(f"{where}: file {entry.file!r:.80} is not the name of episode {entry.index}")
    if not 1 <= entry.length <= MAX_STEPS or entry.split not in SPLITS:
        raise InputError(f"{where}: length {entry.length} or split {entry.split!r:.80} is impossible")
    return entry


def _read_manifest(path: Path) -> tuple[list[EpisodeEntry], int]:
    """All complete lines, sorted by index, and how many bytes they take; the rest is a torn line."""
    text = _read(path, _MAX_MANIFEST_BYTES) if path.exists() or path.is_symlink() else b""
    size = text.rfind(b"\n") + 1
    if size < len(text):
        _refuse_damaged_end(text[size:], path)
        logger.warning("%s: the last line is torn; its episode does not count", path)
    # Line by line: of a large file that is not ours, the first line is all that is parsed.
    lines = itertools.takewhile(lambda line: line.endswith(b"\n"), io.BytesIO(text))
    entries = [_from_line(line, f"{path} line {number}") for number, line in enumerate(lines, 1)]
    entries.sort(key=lambda entry: entry.index)
    for one, two in itertools.pairwise(entries):
        if one.index == two.index:
            raise InputError(f"{path}: episode {one.index} is recorded twice; remove one of the lines")
    return entries, size


def _refuse_damaged_end(torn: bytes, path: Path) -> None:
    """A torn line is the beginning of one; a complete one with something else for a newline is damage."""
    if len(torn) > _MAX_LINE_BYTES:
        raise InputError(f"{path}: ends with {len(torn)} bytes without a newline: the file is damaged")
    try:
        _from_line(torn[:-1], "")
    except InputError:
        return
    raise InputError(f"{path}: the last byte is not a newline: the file is damaged")


def _read_meta(path: Path) -> tuple[StoreMeta, str]:
    """The meta of a store and the digest that the lines of its manifest name."""
    file = path / _META
    record = unseal(_read(file, _MAX_META_BYTES), str(file))
    return StoreMeta.from_json(record, str(file)), _meta_digest(record)


def _read(file: Path, most: int) -> bytes:
    size = check_regular(file).st_size
    if size > most:
        raise InputError(f"{file}: {size} bytes, expected at most {most}; the file is not ours")
    return file.read_bytes()


def _meta_digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(record)).hexdigest()[:_LINE_DIGITS]


# ---------------------------------------------------------------- do meta, manifest and files agree?


def _check_entries(path: Path, entries: Iterable[EpisodeEntry], meta: StoreMeta, digest: str) -> None:
    """Refuses lines of another store, and lines that promise more steps than their files can hold: before anything is
    made as large as they say.
    """
    step = 8 * meta.action_space.size + _FLAT_BYTES
    for entry in entries:
        if entry.meta not in ("", digest):
            raise InputError(
                f"{path / _META}: not the one that {path / _MANIFEST} was written beside (digest {digest}, but episode"
                f" {entry.index} has {entry.meta!r:.80}): one of the two files is another store's; restore it"
            )
        if entry.bytes < entry.length * step:
            raise InputError(
                f"{path / _MANIFEST}: {path / entry.file} has {entry.length} steps in {entry.bytes} bytes, expected"
                f" at least {entry.length * step}: line or file is not ours"
            )


def _recorded_files(path: Path) -> set[int]:
    """Numbers of the episode files that are there, whether a line names them or not."""
    folder = path / _EPISODES
    if folder.is_symlink():
        raise InputError(f"{folder}: expected a folder, found a link; move the episodes there")
    names = os.listdir(folder) if folder.is_dir() else []
    numbers = {name: int(Path(name).stem) for name in names if _EPISODE_NAME.fullmatch(name)}
    return {number for name, number in numbers.items() if episode_file(number) == f"{_EPISODES}/{name}"}


def _named(path: Path, indices: Iterable[int]) -> str:
    """Episode files by name, the first few of many."""
    names = [str(path / episode_file(index)) for index in sorted(indices)]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _refuse_lost_lines(path: Path, unlisted: set[int]) -> None:
    """Raises InputError if more files lack a line than the one that an interrupted recording leaves."""
    if len(unlisted) > 1:
        raise InputError(
            f"{path / _MANIFEST} has lost lines: none names {_named(path, unlisted)}. Restore it from a copy, or move"
            " these files away to do without them"
        )


# ---------------------------------------------------------------- writing


class StoreWriter:
    """Adds episodes to a store; one process at a time. Use `StoreWriter.open` in a `with` statement."""

    def __init__(self, path: Path, meta: StoreMeta, digest: str, lock: FolderLock) -> None:
        self.path = path
        self.meta = meta
        self._digest = digest
        self._lock = lock
        entries, size = _read_manifest(path / _MANIFEST)
        _check_entries(path, entries, meta, digest)
        self.indices: set[int] = {entry.index for entry in entries}
        """Numbers of the episodes that are already recorded."""
        unlisted = _recorded_files(path) - self.indices
        _refuse_lost_lines(path, unlisted)
        self._clean(size, unlisted)

    @classmethod
    def open(cls, path: AnyPath, meta: StoreMeta) -> StoreWriter:
        """Creates a store, or continues one that was recorded with the same meta.

        Raises:
            InputError: the store is being written by another process, was recorded with another meta
                (versions aside), or is damaged. Several files that no line names are damage too: they are not
                removed.
        """
        path = Path(path)
        make_folder(path / _EPISODES)
        lock = FolderLock(path).acquire()
        try:
            return cls(path, *_settle_meta(path, meta), lock)
        except BaseException:
            lock.release()
            raise

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets another process write; a second call changes nothing."""
        self._lock.release()

    def add(self, index: int, episode: Episode, split: str) -> EpisodeEntry:
        """Records an episode; it is durable when this returns.

        Raises:
            InputError: the episode does not fit the store, the number is taken, or an unknown split.
        """
        self._check(index, episode, split)
        data = episode_to_bytes(episode)
        write_file(self.path / episode_file(index), data)
        entry = EpisodeEntry(
            index=index,
            file=episode_file(index),
            length=episode.length,
            split=split,
            seed=int(episode.seed),
            total_reward=float(episode.rewards.sum(dtype=np.float64)),
            terminated=bool(episode.terminated[-1]),
            sha256=hashlib.sha256(data).hexdigest(),
            bytes=len(data),
            meta=self._digest,
        )
        self._append(_to_line(entry))
        self.indices.add(index)
        return entry

    def _check(self, index: int, episode: Episode, split: str) -> None:
        where = f"{self.path}, episode {index}"
        if index in self.indices or not 0 <= index <= _MAX_INDEX:
            raise InputError(f"{where}: the number is taken or negative; choose another")
        if split not in SPLITS:
            raise InputError(f"{where}: split {split!r}, expected one of {SPLITS}")
        try:
            episode.validate(self.meta.action_space)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        if episode.frames.shape[1:3] != self.meta.frame_size:
            found = episode.frames.shape[1:3]
            raise InputError(f"{where}: frames are {found}, the store holds {self.meta.frame_size} (h, w)")

    def _append(self, line: bytes) -> None:
        with open(self.path / _MANIFEST, "ab", buffering=0) as file:
            size = file.tell()
            try:
                file.write(line)
                os.fsync(file.fileno())
            except OSError as error:
                # Half a line would swallow the next one.
                file.truncate(size)
                raise DiskError.of(error, self.path / _MANIFEST, len(line)) from error

    def _clean(self, size: int, unlisted: set[int]) -> None:
        """Removes what an interrupted recording left; `size` is where the manifest's last line ends, `unlisted` is the
        episode that has no line.
        """
        clean_temporaries(self.path, logger)
        clean_temporaries(self.path / _EPISODES, logger)
        with open(self.path / _MANIFEST, "ab") as file:
            if file.tell() != size:
                file.truncate(size)
                os.fsync(file.fileno())
        sync_folder(self.path)
        for index in unlisted:
            left = self.path / episode_file(index)
            logger.warning("removing %s: its recording was interrupted", left)
            left.unlink()


def _settle_meta(path: Path, meta: StoreMeta) -> tuple[StoreMeta, str]:
    """The recorded meta when there is one and it agrees with `meta`; otherwise `meta`, written. And its digest."""
    if (path / _META).exists():
        recorded, digest = _read_meta(path)
        _refuse_other(path, recorded, meta)
        return recorded, digest
    if (path / _MANIFEST).exists() and (path / _MANIFEST).stat().st_size:
        raise InputError(f"{path} has a {_MANIFEST} but no {_META}: restore it or choose another folder")
    write_file(path / _META, (json.dumps(seal(meta.to_json()), indent=2) + "\n").encode())
    return _read_meta(path)


def _refuse_other(path: Path, recorded: StoreMeta, asked: StoreMeta) -> None:
    names = [f.name for f in dataclasses.fields(StoreMeta) if f.name != "versions"]
    different = [name for name in names if getattr(recorded, name) != getattr(asked, name)]
    if different:
        listed = "\n".join(f"  {n}: {getattr(recorded, n)} -> {getattr(asked, n)}" for n in different)
        raise InputError(
            f"{path} was recorded with other settings (found -> asked):\n{listed}\n"
            "Record into another folder, or repeat the settings that it has."
        )


# ---------------------------------------------------------------- reading


class Store:
    """Reads a store. Opening reads the meta and the manifest only; each file is checked when first used.

    Safe to use in forked and spawned workers: open files are never shared between processes.
    """

    def __init__(self, path: Path, meta: StoreMeta, entries: tuple[EpisodeEntry, ...]) -> None:
        self.path = path
        self.meta = meta
        self.entries = entries
        """All episodes, sorted by index."""
        self._readers: OrderedDict[int, EpisodeReader] = OrderedDict()
        self._verified: set[int] = set()
        self._pid = os.getpid()

    @classmethod
    def open(cls, path: AnyPath) -> Store:
        """Opens the store in a folder.

        Raises:
            InputError: no episodes there, or a damaged meta or manifest; names the file and the line.
        """
        path = Path(path)
        # Before the manifest: a recording under way writes the file first, and then its line.
        files = _recorded_files(path)
        entries = _read_manifest(path / _MANIFEST)[0] if path.is_dir() else []
        unlisted = files - {entry.index for entry in entries}
        if not entries:
            _refuse_lost_lines(path, unlisted)
            raise InputError(f"no episodes in {path}. Record some: python scripts/record.py --env CarRacing")
        meta, digest = _read_meta(path)
        _check_entries(path, entries, meta, digest)
        if unlisted:
            logger.warning(
                "%s names no %s: a recording under way or interrupted leaves one such file, lost lines leave more",
                path / _MANIFEST,
                _named(path, unlisted),
            )
        return cls(path, meta, tuple(entries))

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_readers": OrderedDict(), "_pid": -1}

    @cached_property
    def digest(self) -> str:
        """SHA-256 that identifies the content: equal for equal episodes, in whatever order recorded."""
        meta = {name: value for name, value in self.meta.to_json().items() if name != "versions"}
        # The digest of the meta follows from it and from the versions.
        entries = [{name: value for name, value in vars(e).items() if name != "meta"} for e in self.entries]
        return hashlib.sha256(canonical_json([meta, *entries])).hexdigest()

    def split(self, name: str) -> tuple[EpisodeEntry, ...]:
        """The episodes of one split, "train" or "held_out", sorted by index."""
        if name not in SPLITS:
            raise InputError(f"split {name!r}, expected one of {SPLITS}")
        return tuple(entry for entry in self.entries if entry.split == name)

    def reader(self, entry: EpisodeEntry) -> EpisodeReader:
        """Random access to an episode; the last `MAX_OPEN_READERS` stay open.

        Raises:
            InputError: the file is missing, its digest is not the recorded one, or it does not fit the
                store; names the file.
        """
        if self._pid != os.getpid():
            self._readers, self._pid = OrderedDict(), os.getpid()
        if entry.index not in self._readers:
            self._readers[entry.index] = self._open(entry)
            if len(self._readers) > MAX_OPEN_READERS:
                self._readers.popitem(last=False)
        self._readers.move_to_end(entry.index)
        return self._readers[entry.index]

    def episode(self, entry: EpisodeEntry) -> Episode:
        """A whole episode, decoded."""
        return self.reader(entry).episode()

    def check_sizes(self, entries: Iterable[EpisodeEntry]) -> None:
        """Looks whether the files of `entries` are there and as large as they were, without opening them.

        Raises:
            InputError: a file is missing or of another size; names it.
        """
        for entry in entries:
            size = check_regular(self.path / entry.file).st_size
            if size != entry.bytes:
                raise InputError(f"{self.path / entry.file}: {size} bytes, but {entry.bytes} were recorded: damaged")

    def verify(self) -> None:
        """Reads every file and compares it with its digest; an InputError names the first damaged one."""
        for entry in self.entries:
            self._verify(entry)

    def _verify(self, entry: EpisodeEntry) -> None:
        verify_file(self.path / entry.file, FileRecord(entry.bytes, entry.sha256))
        self._verified.add(entry.index)

    def _open(self, entry: EpisodeEntry) -> EpisodeReader:
        if entry.index not in self._verified:
            self._verify(entry)
        reader = EpisodeReader(self.path / entry.file)
        found = reader.length, reader.shape[1:3], reader.action_size
        expected = entry.length, self.meta.frame_size, self.meta.action_space.size
        if found != expected:
            raise InputError(f"{reader.path}: (T, (h, w), a) is {found}, the store says {expected}")
        reader.check_steps(self.meta.action_space)
        return reader
