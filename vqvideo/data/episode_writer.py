"""Writing an episode's file while its frames come: however long it gets, few of them are in memory.

    with EpisodeWriter(store_writer.folder) as writer:
        for frames in film:                          # (n, h, w, 3) uint8, any n
            writer.add_frames(frames)
        store_writer.add(index, writer.finish(steps, seed), "train")

The frames are compressed at once and wait in a file without a name, which no crash leaves behind. Only at the end is it
known what stands before them in the file: that is when it is put together, under a temporary name that the store knows.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, Self

import numpy as np
import zstandard
from numpy.typing import NDArray

from vqvideo.data.episode import CHUNK, EPISODE_FORMAT, Episode, Header, Steps
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace
from vqvideo.storage.files import AnyPath, aside, disk_errors

_LEVEL = 3
_MEMORY = 2**24
"""Bytes of compressed frames that wait in memory: most episodes need no second file."""
_BLOCK = 2**20
_TYPES = {"float64": "F64", "float32": "F32", "int64": "I64", "uint8": "U8", "bool": "BOOL"}
"""Numpy's names and those of safetensors."""


@dataclass(frozen=True, eq=False)
class WrittenEpisode:
    """An episode whose file is complete and durable under a temporary name, until `StoreWriter.add` takes it."""

    path: Path
    """The temporary name."""
    shape: tuple[int, int, int, int]
    """(T+1, h, w, 3): of its frames."""
    steps: Steps
    """What happened between the frames."""
    seed: int
    """The seed that the environment was reset with."""
    sha256: str
    """Digest of the file."""
    bytes: int
    """Size of the file."""
    still: bool
    """All frames are equal."""
    black: bool
    """All frames are black."""

    @property
    def length(self) -> int:
        """T, the number of actions: one less than frames."""
        return self.shape[0] - 1

    def validate(self, space: ActionSpace, frame_size: tuple[int, int]) -> None:
        """InputError, as `Episode.validate`, if a store of these actions and frames cannot hold it."""
        if self.shape[1:3] != tuple(frame_size):
            raise InputError(f"frames: found uint8 {self.shape}, expected uint8 {(self.shape[0], *frame_size, 3)}")
        self.steps.validate(self.length, space)


class EpisodeWriter:
    """Writes one episode into a store's folder; use it with `with`. Equal episodes give equal bytes.

    Args:
        folder: `StoreWriter.folder`, on whose disk everything is written.

    Raises:
        DiskError: the disk is full or gone; also from the methods.
    """

    def __init__(self, folder: AnyPath) -> None:
        self.folder = Path(folder).absolute()
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        # The prefix: where files without a name are not to be had, `clean_temporaries` knows what a crash left.
        self._compressed = SpooledTemporaryFile(_MEMORY, dir=str(self.folder), prefix=".tmp-00-")  # noqa: SIM115
        self._offsets = array("q", [0])
        self._count = 0
        self._rest = np.empty((0, 0, 0, 3), np.uint8)
        """Frames that do not fill a chunk yet."""
        self._first: NDArray[np.uint8] | None = None
        self._still = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # on a full disk
            self._compressed.close()

    def add_frames(self, frames: NDArray[np.uint8]) -> None:
        """Takes the next frames, (n, h, w, 3) uint8.

        Raises:
            InputError: they are none, or of another size than those before.
        """
        is_array = isinstance(frames, np.ndarray)
        if not is_array or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            got = f"{frames.dtype} {frames.shape}" if is_array else type(frames).__name__
            raise InputError(f"frames: found {got}, expected uint8 (n, h, w, 3)")
        if not len(frames):
            return
        if self._first is None:
            self._first = frames[0].copy()
        if frames.shape[1:] != self._first.shape:
            raise InputError(f"frames: size changed from {self._first.shape} to {frames.shape[1:]}, expected one size")
        self._count += len(frames)
        joined = np.concatenate([self._rest, frames]) if len(self._rest) else frames
        full = len(joined) - len(joined) % CHUNK
        for start in range(0, full, CHUNK):
            self._compress(joined[start : start + CHUNK])
        self._rest = joined[full:].copy()

    def finish(self, steps: Steps, seed: int) -> WrittenEpisode:
        """Puts the file together.

        Args:
            steps: what happened between the frames, of one step less than frames.
            seed: the seed that the environment was reset with.

        Raises:
            InputError: no frames, or `steps` of other types or of another length.
        """
        if self._first is None:
            raise InputError("frames: found none, expected 2 or more")
        shape: tuple[int, int, int, int] = (self._count, *self._first.shape)
        steps.check(self._count - 1)
        if len(self._rest):
            self._compress(self._rest)
            self._rest = self._rest[:0]
        path = aside(self.folder / "episode.safetensors")
        digest, size = hashlib.sha256(), 0
        with disk_errors(self.folder):
            try:
                with open(path, "xb") as file:
                    for part in self._parts(steps, shape, seed):
                        size += file.write(part)
                        digest.update(part)
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        black = self._still and not self._first.any()
        return WrittenEpisode(path, shape, steps, seed, digest.hexdigest(), size, self._still, black)

    def _compress(self, chunk: NDArray[np.uint8]) -> None:
        self._still = self._still and bool((chunk == self._first).all())
        blob = self._compressor.compress(chunk.tobytes())
        with disk_errors(self.folder):
            self._compressed.write(blob)
        self._offsets.append(self._offsets[-1] + len(blob))

    def _parts(self, steps: Steps, shape: tuple[int, int, int, int], seed: int) -> Iterator[bytes]:
        """The file's content, as safetensors would lay it out if all of it were in memory."""
        tensors: dict[str, NDArray[Any]] = {
            # Types with larger numbers first, and of one type by name: that is safetensors' order.
            "chunk_offsets": np.array(self._offsets, np.int64),
            "actions": steps.actions,
            "rewards": steps.rewards,
            "frames": np.broadcast_to(np.uint8(0), self._offsets[-1]),  # stands for those that are not in memory
            "terminated": steps.terminated,
            "truncated": steps.truncated,
        }
        yield _header(tensors, Header(EPISODE_FORMAT, shape, steps.actions.shape[1], int(seed)))
        for name, values in tensors.items():
            if name == "frames":
                self._compressed.seek(0)
                yield from iter(partial(self._compressed.read, _BLOCK), b"")
            else:
                yield values.tobytes()


def _header(tensors: dict[str, NDArray[Any]], facts: Header) -> bytes:
    """What a safetensors file of these tensors, in this order, begins with."""
    # One key: safetensors does not keep the order of several, and equal episodes must give equal bytes.
    header: dict[str, Any] = {"__metadata__": {"vqvideo": json.dumps(vars(facts))}}
    end = 0
    for name, values in tensors.items():
        begin, end = end, end + values.nbytes
        header[name] = {"dtype": _TYPES[values.dtype.name], "shape": values.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_episode(folder: AnyPath, episode: Episode) -> WrittenEpisode:
    """A whole episode, written as `EpisodeWriter` does."""
    with EpisodeWriter(folder) as writer:
        writer.add_frames(episode.frames)
        return writer.finish(episode.steps, int(episode.seed))
