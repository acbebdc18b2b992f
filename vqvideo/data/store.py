"""A folder of episodes: `meta.json`, `manifest.jsonl` and `episodes/000000.safetensors`, ...

An episode counts once its line stands in the manifest, and the line is written after the file is
durable: a killed recording loses the episode it was in, and nothing else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vqvideo.data import store_hub
from vqvideo.data.episode import Episode, EpisodeReader
from vqvideo.data.episode_writer import WrittenEpisode, write_episode
from vqvideo.data.index import (
    EPISODES,
    MANIFEST,
    MAX_INDEX,
    META,
    SPLITS,
    EpisodeEntry,
    StoreMeta,
    check_entries,
    episode_file,
    lasting,
    named,
    read_manifest,
    read_meta,
    recorded_files,
    refuse_lost_lines,
    to_line,
    write_meta,
)
from vqvideo.data.main_guard import end_second_recording
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace
from vqvideo.storage import files
from vqvideo.storage.files import AnyPath
from vqvideo.storage.locks import FolderLock

MAX_READERS = 4096
"""Episodes whose actions, rewards and ends stay in memory, a few KiB each. Clips are drawn at random: with fewer, most
would read and check a header again."""

logger = logging.getLogger(__name__)


# ---------------------------------------------------------------- writing


class StoreWriter:
    """Adds episodes to a store; one process at a time. Made by `StoreWriter.open`."""

    def __init__(self, path: Path, meta: StoreMeta, digest: str) -> None:
        self.path = path
        self.meta = meta
        self._digest = digest
        entries, size = read_manifest(path / MANIFEST)
        check_entries(path, entries, digest)
        self.indices: set[int] = {entry.index for entry in entries}
        """Numbers of the episodes that are already recorded."""
        unlisted = recorded_files(path) - self.indices
        refuse_lost_lines(path, unlisted)
        self._clean(size, unlisted)

    @classmethod
    @contextmanager
    def open(cls, path: AnyPath, meta: StoreMeta) -> Iterator[StoreWriter]:
        """Creates a store, or continues one that was recorded with the same meta; use it with `with`.

        Raises:
            InputError: the store is being written by another process, was recorded with another meta
                (versions aside), or is damaged. Several files that no line names are damage too: they are not
                removed.
        """
        end_second_recording()
        path = Path(path)
        files.make_folder(path / EPISODES)
        with FolderLock(path):
            writer = cls(path, *_settle_meta(path, meta))
            try:
                yield writer
            finally:
                with suppress(OSError):
                    files.clean_temporaries(writer.folder)  # episodes that were written and not added

    @property
    def folder(self) -> Path:
        """Where the episodes are. An `EpisodeWriter` for this store writes there."""
        return self.path / EPISODES

    def add(self, index: int, episode: Episode | WrittenEpisode, split: str) -> EpisodeEntry:
        """Records an episode, whole or as an `EpisodeWriter` has written it; it is durable when this returns.

        Raises:
            InputError: the episode does not fit the store, the number is taken, or an unknown split.
        """
        self._check(index, episode, split)
        written = write_episode(self.folder, episode) if isinstance(episode, Episode) else episode
        entry = EpisodeEntry(
            index=index,
            file=episode_file(index),
            length=written.length,
            split=split,
            seed=written.seed,
            total_reward=float(written.steps.rewards.sum(dtype=np.float64)),
            terminated=bool(written.steps.terminated[-1]),
            sha256=written.sha256,
            bytes=written.bytes,
            meta=self._digest,
        )
        with files.disk_errors(self.path / entry.file):
            os.replace(written.path, self.path / entry.file)
            files.sync_folder(self.folder)
        self._append(to_line(entry))
        self.indices.add(index)
        return entry

    def _check(self, index: int, episode: Episode | WrittenEpisode, split: str) -> None:
        where = f"{self.path}, episode {index}"
        if index in self.indices or not 0 <= index <= MAX_INDEX:
            raise InputError(f"{where}: the number is taken or negative; choose another")
        if split not in SPLITS:
            raise InputError(f"{where}: split {split!r}, expected one of {SPLITS}")
        try:
            episode.validate(self.meta.action_space, self.meta.frame_size)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error

    def _append(self, line: bytes) -> None:
        with files.disk_errors(self.path / MANIFEST), open(self.path / MANIFEST, "ab", buffering=0) as file:
            size = file.tell()
            try:
                file.write(line)
                os.fsync(file.fileno())
            except OSError:
                # Half a line would swallow the next one.
                file.truncate(size)
                raise

    def _clean(self, size: int, unlisted: set[int]) -> None:
        """Removes what an interrupted recording left; `size` is where the manifest's last line ends, `unlisted` is the
        episode that has no line.
        """
        files.clean_temporaries(self.path)
        files.clean_temporaries(self.path / EPISODES)
        with open(self.path / MANIFEST, "ab") as file:
            if file.tell() != size:
                file.truncate(size)
                os.fsync(file.fileno())
        files.sync_folder(self.path)
        for index in unlisted:
            left = self.path / episode_file(index)
            logger.warning("removing %s: its recording was interrupted", left)
            left.unlink()


def _settle_meta(path: Path, meta: StoreMeta) -> tuple[StoreMeta, str]:
    """The recorded meta, or `meta` if there is none and it is written now; and its digest. They must agree."""
    if not (path / META).exists():
        if (path / MANIFEST).exists() and (path / MANIFEST).stat().st_size:
            raise InputError(f"{path} has a {MANIFEST} but no {META}: restore it or choose another folder")
        write_meta(path, meta)
    recorded, digest = read_meta(path)
    if recorded.imported and not meta.imported:
        raise InputError(
            f"{path} holds episodes that were imported from {recorded.imported}: record into another folder"
        )
    names = [field.name for field in dataclasses.fields(StoreMeta) if field.name != "versions"]
    different = [name for name in names if getattr(recorded, name) != getattr(meta, name)]
    if "env_kwargs" in different and "env_spec" in different:
        different.remove("env_spec")  # it holds them too, in a long line
    if different:
        listed = "\n".join(f"  {name}: {getattr(recorded, name)} -> {getattr(meta, name)}" for name in different)
        raise InputError(
            f"{path} was recorded with other settings (found -> asked):\n{listed}\n"
            "Record into another folder, or repeat the settings that it has."
        )
    return recorded, digest


# ---------------------------------------------------------------- reading


class Store:
    """Reads a store. Opening reads the meta and the manifest only; each file is checked when first used.

    Safe to use in forked and spawned workers: no file stays open.
    """

    def __init__(self, path: Path, meta: StoreMeta, entries: tuple[EpisodeEntry, ...]) -> None:
        self.path = path
        self.meta = meta
        self.entries = entries
        """All episodes, sorted by index."""
        self._readers: OrderedDict[int, EpisodeReader] = OrderedDict()
        self._verified: set[int] = set()

    @classmethod
    def open(cls, path: AnyPath) -> Store:
        """Opens the store in a folder.

        Raises:
            InputError: no episodes there, or a damaged meta or manifest; names the file and the line.
        """
        path = Path(path)
        # Before the manifest: a recording under way writes the file first, and then its line.
        recorded = recorded_files(path)
        entries = read_manifest(path / MANIFEST)[0] if path.is_dir() else []
        unlisted = recorded - {entry.index for entry in entries}
        if not entries:
            refuse_lost_lines(path, unlisted)
            raise InputError(
                f"no episodes in {path}. Record some: python scripts/record.py --env CarRacing; or import videos: "
                "python scripts/import_data.py my_videos"
            )
        meta, digest = read_meta(path)
        check_entries(path, entries, digest)
        if unlisted:
            logger.warning(
                "%s names no %s: a recording under way or interrupted leaves one such file, lost lines leave more",
                path / MANIFEST,
                named(path, unlisted),
            )
        return cls(path, meta, tuple(entries))

    @classmethod
    def from_hub(cls, repo_id: str, folder: AnyPath | None = None, **hub: Any) -> Store:
        """Fetches a store that `push_to_hub` put onto the Hugging Face Hub.

        Args:
            repo_id: of the data set, such as "someone/car_racing".
            folder: a new one for the store; by default data/<name of the repository>.
            hub: arguments of `huggingface_hub.snapshot_download` (revision, token, cache_dir, ...).

        Raises:
            InputError: no such repository, no store in it, a damaged file, or a folder that is not empty. Then no
                folder is made.
        """
        folder = Path(folder) if folder is not None else store_hub.default_folder(repo_id)
        with store_hub.pulled(repo_id, folder, **hub) as arrived:
            cls.open(arrived).verify()
        return cls.open(folder)

    def push_to_hub(self, repo_id: str, *, private: bool = False, **hub: Any) -> str:
        """Puts the store onto the Hugging Face Hub as a data set, with a card; codes that are cached stay here.

        Args:
            repo_id: such as "your_name/car_racing", made if there is none. Episodes that are only there are removed.
            private: whether a new one is seen by its owner only.
            hub: arguments of `huggingface_hub.HfApi.upload_folder` (token, revision, commit_message, ...).

        Returns:
            The address of the repository.

        Raises:
            InputError: a damaged file, or no way to the Hub.
        """
        self.verify()
        return store_hub.push(self.path, self.meta, self.entries, repo_id, private, **hub)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_readers": OrderedDict()}

    @cached_property
    def digest(self) -> str:
        """SHA-256 that identifies the content: equal for equal episodes, in whatever order recorded."""
        meta = lasting(self.meta)
        # The digest of the meta follows from it and from the versions.
        entries = [{name: value for name, value in vars(e).items() if name != "meta"} for e in self.entries]
        return hashlib.sha256(files.canonical_json([meta, *entries])).hexdigest()

    def split(self, name: str) -> tuple[EpisodeEntry, ...]:
        """The episodes of one split, "train" or "held_out", sorted by index."""
        if name not in SPLITS:
            raise InputError(f"split {name!r}, expected one of {SPLITS}")
        return tuple(entry for entry in self.entries if entry.split == name)

    def long_enough(self, split: str, frames: int) -> tuple[EpisodeEntry, ...]:
        """The episodes of one split that have at least so many frames; those that have not are counted in the log.

        Raises:
            InputError: there is none.
        """
        entries = self.split(split)
        kept = tuple(entry for entry in entries if entry.length + 1 >= frames)
        if not kept:
            longest = max((entry.length + 1 for entry in entries), default=0)
            raise InputError(
                f"store {self.path} has 0 clips of length {frames} in split {split}; the longest of its {len(entries)}"
                f" episodes has {longest} frames. Record longer episodes or more of them (scripts/record.py), or lower"
                " the clip length"
            )
        if short := len(entries) - len(kept):
            counts = f"{short} of {len(entries)} episodes in split {split}"
            logger.info("%s: %s are shorter than a clip of %d frames: left out", self.path, counts, frames)
        return kept

    def require(self, action_space: ActionSpace, frame_size: tuple[int, int]) -> None:
        """Raises InputError unless actions and frames are those that a world model takes."""
        asked = {"actions in": action_space, "frames of (h, w)": frame_size}
        found = {"actions in": self.meta.action_space, "frames of (h, w)": self.meta.frame_size}
        for name in asked:
            if found[name] != asked[name]:
                raise InputError(
                    f"{self.path} has {name} {found[name]}, the world model takes {asked[name]}: they are of different "
                    "environments, or were recorded otherwise"
                )

    def reader(self, entry: EpisodeEntry) -> EpisodeReader:
        """Random access to an episode; the last `MAX_READERS` are kept.

        Raises:
            InputError: the file is missing, its digest is not the recorded one, or it does not fit the
                store; names the file.
        """
        if entry.index not in self._readers:
            self._readers[entry.index] = self._open(entry)
            if len(self._readers) > MAX_READERS:
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
            size = files.check_regular(self.path / entry.file).st_size
            if size != entry.bytes:
                raise InputError(f"{self.path / entry.file}: {size} bytes, but {entry.bytes} were recorded: damaged")

    def verify(self) -> None:
        """Reads every file and compares it with its digest; an InputError names the first damaged one."""
        for entry in self.entries:
            self._verify(entry)

    def _verify(self, entry: EpisodeEntry) -> None:
        files.verify_file(self.path / entry.file, files.FileRecord(entry.bytes, entry.sha256))
        self._verified.add(entry.index)

    def _open(self, entry: EpisodeEntry) -> EpisodeReader:
        if entry.index not in self._verified:
            self._verify(entry)
        reader = EpisodeReader(self.path / entry.file)
        found = reader.length, reader.shape[1:3], reader.action_size
        expected = entry.length, self.meta.frame_size, self.meta.action_space.size
        if found != expected:
            raise InputError(f"{reader.path}: (T, (h, w), a) is {found}, the store says {expected}")
        return reader
