"""The cache of codes beside a store: each split encoded once by one tokenizer, in shards that any rank can write. Where
the store is read-only, as shared ones are, new shards go to another folder.

A shard is a folder of its own, complete or absent, and holds a few episodes. Which ones follows from the store alone:
any number of ranks makes the same shards, and a cache that was interrupted is completed and not begun again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file
from tqdm import tqdm

from vqvideo.data.codes import CodeArrays, Tokenizer, encode_episode, joined
from vqvideo.data.config import SegmentConfig
from vqvideo.data.index import EpisodeEntry
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.storage import files
from vqvideo.storage.files import DiskError

logger = logging.getLogger(__name__)
_FORMAT = 3
"""Of the cache, in its name: a cache of another format is not found and made again."""
_FILE = "codes.safetensors"
_SHARD_FRAMES = 2**12
"""A shard is full when its episodes have so many frames: a few MiB of codes, and enough shards to share among ranks."""


class CodeCache:
    """The codes of a split. It is named after the tokenizer's fingerprint, the store's content and the segments, so
    stale codes are never read: another tokenizer or a longer store makes another cache.

    Shards are looked for in both places, so processes need not agree about where a shard is, nor who can write where.

    With several processes each one calls `encode_share`, waits until `missing_shards` finds none, and calls `read`.

    Args:
        tokenizer: what encodes.
        fingerprint: what tells it from every other.
        store: the episodes.
        split: "train" or "held_out".
        cfg: how episodes are cut up.
        elsewhere: folder for new shards where those of the store cannot be written; without one that is an error.

    Raises:
        InputError: no episode holds two latent steps.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        fingerprint: str,
        store: Store,
        split: str,
        cfg: SegmentConfig,
        elsewhere: Path | None = None,
    ) -> None:
        self.tokenizer, self.fingerprint = tokenizer, fingerprint
        self._beside, self._elsewhere = Path(store.path) / "codes", elsewhere
        self.store, self.split, self.cfg = store, split, cfg
        self._shards = list(_shards(store.long_enough(split, 1 + tokenizer.stride)))

    def missing_shards(self) -> list[int]:
        """Numbers of the shards that are not there (yet). Only looks at the disk."""
        return [number for number in range(len(self._shards)) if not self._is_there(number)]

    def encode_share(self, device: torch.device, rank: int = 0, world: int = 1) -> None:
        """Encodes and writes what is missing of this rank's share, every `world`-th shard.

        Raises:
            InputError: an episode is missing or damaged.
            DiskError: no room.
        """
        # By the number and not by the place among the missing ones: those of another rank may just have come.
        mine = [number for number in self.missing_shards() if number % world == rank]
        episodes = [entry for number in mine for entry in self._shards[number]]
        self.store.check_sizes(episodes)
        if mine:
            files.check_writable(self._home)
        with tqdm(total=len(episodes), desc="encoding", unit="episode", leave=False, disable=rank > 0) as bar:
            for number in mine:
                parts = []
                for entry in self._shards[number]:
                    parts.append(encode_episode(self.tokenizer, self.store.reader(entry), self.cfg, device))
                    bar.update()
                # Another run may have made it meanwhile, and read it already.
                if not self._is_there(number):
                    self._write(number, joined(parts))

    def read(self) -> list[CodeArrays]:
        """All shards in order. Their arrays stay on disk: what is used comes into memory, and may leave it again.

        Raises:
            InputError: a shard is missing, damaged, or of another tokenizer or store; names the folder to remove.
        """
        return [self._read(number) for number in range(len(self._shards))]

    @cached_property
    def _home(self) -> Path:
        """Where new shards go."""
        try:
            files.check_writable(self._beside)
        except DiskError:
            if self._elsewhere is None:
                raise
            logger.info("%s cannot be written: codes go to %s", self._beside, self._elsewhere)
            return self._elsewhere
        return self._beside

    def _name(self, number: int) -> str:
        cut = f"{self.cfg.latent_steps}x{self.cfg.every}"
        return f"{self.fingerprint[:16]}-{self.store.digest[:8]}-{self.split}-{cut}-v{_FORMAT}-{number:05d}"

    def _folder(self, number: int) -> Path:
        """Where a shard is; beside the store if it is nowhere."""
        places = [home / self._name(number) for home in (self._beside, self._elsewhere) if home is not None]
        return next((place for place in places if (place / files.MANIFEST).is_file()), places[0])

    def _is_there(self, number: int) -> bool:
        return (self._folder(number) / files.MANIFEST).is_file()

    def _info(self, number: int) -> dict[str, Any]:
        episodes = [entry.index for entry in self._shards[number]]
        return {"tokenizer": self.fingerprint, "store": self.store.digest, "split": self.split, "episodes": episodes}

    def _write(self, number: int, arrays: CodeArrays) -> None:
        files.make_folder(self._home)
        contents = {_FILE: save_arrays(arrays._asdict())}
        files.commit_folder(self._home / self._name(number), contents, self._info(number), replace=True)

    def _read(self, number: int) -> CodeArrays:
        folder, info = self._folder(number), self._info(number)
        try:
            manifest = files.read_manifest(folder)
            if manifest.info.get("tokenizer") != info["tokenizer"]:
                raise InputError(f"{folder} was made by another tokenizer")
            if manifest.info != info or _FILE not in manifest.files:
                raise InputError(f"{folder / files.MANIFEST}: made of another store or split")
            files.verify_file(folder / _FILE, manifest.files[_FILE])
        except InputError as error:
            raise InputError(f"{error}. It is only a cache: remove {folder}, and it is made again") from error
        return map_arrays(folder / _FILE)


def _shards(entries: tuple[EpisodeEntry, ...]) -> Iterator[list[EpisodeEntry]]:
    shard: list[EpisodeEntry] = []
    frames = 0
    for entry in entries:
        shard.append(entry)
        frames += entry.length + 1
        if frames >= _SHARD_FRAMES:
            yield shard
            shard, frames = [], 0
    if shard:
        yield shard


class _Mapped(CodeArrays):
    """Arrays of a file. To a process that is not forked their file's name is sent: pickled, they would be copied."""

    file: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return map_arrays, (self.file,)


def map_arrays(file: Path) -> CodeArrays:
    """The arrays of a shard's file, mapped into memory."""
    # Through torch, which maps a file where numpy would read all of it.
    mapped = _Mapped(**{name: tensor.numpy() for name, tensor in load_file(file).items()})
    mapped.file = file
    return mapped
