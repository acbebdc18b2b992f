"""One episode: the record itself, and how its file is read (safetensors with zstd-compressed chunks of frames)."""

from __future__ import annotations

import io
import json
import math
import os
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace
from vqvideo.storage.files import parse_json
from vqvideo.storage.records import typed

EPISODE_FORMAT = 1
CHUNK = 16
"""Frames compressed together: long enough to compress 11 times, short enough for random access."""
MAX_SIDE = 2048
"""Pixels."""
MAX_STEPS = 2**24
"""More than a fortnight at ten frames per second."""


class Steps(NamedTuple):
    """What an episode holds beside its frames; the fields of `Episode` with the same names."""

    actions: NDArray[np.float64]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]

    def check(self, length: int, columns: int | None = None) -> None:
        """InputError unless these are arrays of so many steps, and actions of so many columns if that is given."""
        columns = columns if columns is not None else int(np.prod(np.shape(self.actions)[1:]))
        _expect("actions", self.actions, np.float64, (length, columns))
        _expect("rewards", self.rewards, np.float32, (length,))
        _expect("terminated", self.terminated, np.bool_, (length,))
        _expect("truncated", self.truncated, np.bool_, (length,))
        if not 1 <= length <= MAX_STEPS:
            raise InputError(f"frames: {length + 1}, expected 2 (one action leads from x_0 to x_1) to {MAX_STEPS + 1}")

    def validate(self, length: int, space: ActionSpace) -> None:
        """InputError, as `Episode.validate`, for what cannot be recorded in so many steps of this space."""
        self.check(length, space.size)
        space.validate(self.actions, "actions")
        if not np.isfinite(self.rewards).all():
            step = int(np.argmin(np.isfinite(self.rewards)))
            raise InputError(f"rewards: step {step} is {self.rewards[step]}, expected finite numbers")
        for name in ("terminated", "truncated"):
            flags = getattr(self, name)
            if flags[:-1].any():
                raise InputError(f"{name} is True at step {int(np.argmax(flags))} of {length}: an episode ends there")


def _expect(name: str, value: object, dtype: type, shape: tuple[int, ...]) -> None:
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.shape != shape:
        found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise InputError(f"{name}: found {found}, expected {np.dtype(dtype).name} {shape}")


@dataclass(frozen=True, eq=False)
class Episode:
    """Frames `x_0 .. x_T` and what happened between them: `actions[t]` leads from `x_t` to `x_{t+1}`."""

    frames: NDArray[np.uint8]
    """(T+1, h, w, 3) uint8 RGB."""
    actions: NDArray[np.float64]
    """(T, a) float64: flat actions of the store's action space."""
    rewards: NDArray[np.float32]
    """(T,) float32."""
    terminated: NDArray[np.bool_]
    """(T,) bool: the environment ended; only the last one can be True."""
    truncated: NDArray[np.bool_]
    """(T,) bool: the recording was cut; only the last one can be True."""
    seed: int
    """The seed that the environment was reset with."""

    @property
    def length(self) -> int:
        """T, the number of actions: one less than frames."""
        return len(self.actions)

    @property
    def steps(self) -> Steps:
        """What it holds beside its frames."""
        return Steps(self.actions, self.rewards, self.terminated, self.truncated)

    def validate(self, space: ActionSpace, frame_size: tuple[int, int]) -> None:
        """Checks that every field is what a store of these actions and frames can hold.

        Raises:
            InputError: names the field, what was found and what is expected.
        """
        _expect("frames", self.frames, np.uint8, (len(self.frames), *frame_size, 3))
        self.steps.validate(len(self.frames) - 1, space)


def check_frame_size(size: tuple[int, ...], where: str) -> None:
    """Refuses a frame size (h, w) that is not within 1 and `MAX_SIDE` pixels."""
    if len(size) != 2 or not all(type(n) is int and 1 <= n <= MAX_SIDE for n in size):
        raise InputError(f"{where}: size {reprlib.repr(size)}, expected 1 to {MAX_SIDE} pixels a side")


# ---------------------------------------------------------------- the file


@dataclass(frozen=True)
class Header:
    """Facts that stand in the file beside its tensors."""

    format_version: int
    shape: tuple[int, int, int, int]
    """Of the frames."""
    actions: int
    """Columns."""
    seed: int


class EpisodeReader:
    """Random access to one episode's file. Opening it reads everything but the frames.

    What the file holds is not looked at again: its writer has, and a store compares it with its digest.
    No file stays open: of thousands of episodes each is read a little at a time, in forked processes too.

    Raises:
        InputError: no such file, another format, or a damaged file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        with self._damage_named(), safe_open(self.path, framework="np") as file:
            facts = (file.metadata() or {}).get("vqvideo")
            if facts is None:
                raise InputError(f"{self.path}: a safetensors file, but not one of our episodes")
            header = typed(Header, parse_json(facts.encode(), self.path), f"{self.path}: header")
            if header.format_version != EPISODE_FORMAT:
                found = reprlib.repr(header.format_version)
                raise InputError(f"{self.path}: format version {found}, this version reads {EPISODE_FORMAT}")
            self.shape, self.action_size, self.seed = header.shape, header.actions, header.seed
            self.steps = Steps(*(file.get_tensor(name) for name in Steps._fields))
            offsets = file.get_tensor("chunk_offsets")
        self._offsets: list[int] = (offsets + self._begin_of_frames()).tolist()

    @property
    def length(self) -> int:
        """T, the number of actions."""
        return self.shape[0] - 1

    def frames(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Frames start..stop-1 as (stop-start, h, w, 3) uint8; decodes only the chunks that hold them.

        Raises:
            InputError: frames that the episode does not have, or a damaged chunk.
        """
        if not 0 <= start < stop <= self.shape[0]:
            raise InputError(f"{self.path}: frames {start}..{stop} asked, it has 0..{self.shape[0]}")
        result = np.empty((stop - start, *self.shape[1:]), dtype=np.uint8)
        with self._damage_named(), open(self.path, "rb", buffering=0) as file:
            for index in range(start // CHUNK, -(-stop // CHUNK)):
                first = index * CHUNK
                begin, end = max(start, first), min(stop, first + CHUNK)
                result[begin - start : end - start] = self._chunk(file, index)[begin - first : end - first]
        return result

    def episode(self) -> Episode:
        """The whole episode, decoded."""
        return Episode(self.frames(0, self.shape[0]), *self.steps, seed=self.seed)

    def _begin_of_frames(self) -> int:
        """Where they begin in the file: to read a part of them through safetensors would parse its header each time."""
        with open(self.path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            return 8 + size + int(json.loads(file.read(size))["frames"]["data_offsets"][0])

    def _chunk(self, file: io.FileIO, index: int) -> NDArray[np.uint8]:
        begin, end = self._offsets[index : index + 2]
        file.seek(begin)
        blob = file.read(end - begin)
        # zstd allocates what the chunk itself declares.
        declared, most = zstandard.frame_content_size(blob), CHUNK * math.prod(self.shape[1:])
        if not 0 < declared <= most:
            raise InputError(f"{self.path}: chunk {index} declares {declared} bytes, expected at most {most}")
        return np.frombuffer(zstandard.decompress(blob), dtype=np.uint8).reshape(-1, *self.shape[1:])

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except (SafetensorError, OSError, zstandard.ZstdError) as error:
            raise InputError(f"{self.path}: not a readable episode ({error}); it is damaged") from error
