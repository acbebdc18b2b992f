"""One episode: the record itself, and its file (safetensors with zstd-compressed chunks of frames)."""

from __future__ import annotations

import io
import json
import math
import os
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace
from vqvideo.storage.files import check_regular, parse_json
from vqvideo.storage.records import typed

EPISODE_FORMAT = 1
CHUNK = 16
"""Frames compressed together: long enough to compress 11 times, short enough for random access."""
MAX_SIDE = 2048
"""Pixels: bounds what one chunk can make a reader allocate."""
MAX_STEPS = 2**24
"""More than a fortnight at ten frames per second."""
_LEVEL = 3
_MAX_HEADER_BYTES = 2**16
"""It has about 700; safetensors itself would read a header of up to 100 MB."""
_MOST_ZSTD = 2**15
"""How much smaller zstd makes anything at best: 128 KiB in a block of 4 bytes (RFC 8878, 3.1.1.2)."""


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

    def validate(self, space: ActionSpace | None = None) -> None:
        """Checks every field, and the actions against `space` when it is given.

        Raises:
            InputError: names the field, what was found and what is expected.
        """
        self._check("frames", np.uint8, ("T+1", "h", "w", 3))
        steps = len(self.frames) - 1
        if not 1 <= steps <= MAX_STEPS:
            raise InputError(
                f"frames: {steps + 1}, expected at least 2 (one action leads from x_0 to x_1) and at most"
                f" {MAX_STEPS + 1}"
            )
        check_frame_size(self.frames.shape[1:3], "frames")
        self._check("actions", np.float64, (steps, space.size if space else "a"))
        self._check("rewards", np.float32, (steps,))
        for flags in ("terminated", "truncated"):
            self._check(flags, np.bool_, (steps,))
        Steps(*(getattr(self, name) for name in _FIELDS)).validate(space)

    def _check(self, field: str, dtype: type, shape: tuple[int | str, ...]) -> None:
        """Any size fits where `shape` has only a letter."""
        value = getattr(self, field)
        if not isinstance(value, np.ndarray) or value.dtype != dtype:
            found = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise InputError(f"{field}: found {found}, expected {np.dtype(dtype).name}")
        pairs = zip(shape, value.shape, strict=False)
        if value.ndim != len(shape) or any(want != got for want, got in pairs if isinstance(want, int)):
            expected = str(shape).replace("'", "")
            beside = "" if field == "frames" else f" for {len(self.frames)} frames"
            raise InputError(f"{field}: shape {value.shape}, expected {expected}{beside}")


_FIELDS = ("actions", "rewards", "terminated", "truncated")


class Steps(NamedTuple):
    """What an episode holds beside its frames; the fields of `Episode` with the same names."""

    actions: NDArray[np.float64]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]

    def validate(self, space: ActionSpace | None = None) -> None:
        """Checks the values, and the actions against `space` when it is given. InputError names the step."""
        steps = len(self.rewards)
        for name in ("terminated", "truncated"):
            flags = getattr(self, name)
            if flags[:-1].any():
                raise InputError(f"{name} is True at step {int(np.argmax(flags))} of {steps}: an episode ends there")
        if not np.isfinite(self.rewards).all():
            step = int(np.argmin(np.isfinite(self.rewards)))
            raise InputError(f"rewards: step {step} is {self.rewards[step]}, expected finite numbers")
        if space is not None:
            space.validate(self.actions, "actions")
        elif not np.isfinite(self.actions).all():
            step = int(np.argwhere(~np.isfinite(self.actions))[0, 0])
            raise InputError(f"actions: step {step} is {self.actions[step]}, expected finite numbers")


def check_frame_size(size: tuple[int, ...], where: str) -> None:
    """Refuses a frame size (h, w) that is not within 1 and `MAX_SIDE` pixels."""
    if len(size) != 2 or not all(type(n) is int and 1 <= n <= MAX_SIDE for n in size):
        raise InputError(f"{where}: size {reprlib.repr(size)}, expected 1 to {MAX_SIDE} pixels a side")


# ---------------------------------------------------------------- the file


@dataclass(frozen=True)
class _Header:
    """Facts that stand in the file beside its tensors."""

    format_version: int
    shape: tuple[int, int, int, int]
    """Of the frames."""
    actions: int
    """Columns."""
    seed: int


def episode_to_bytes(episode: Episode) -> bytes:
    """The content of an episode's file; the same episode always gives the same bytes. It must be a valid one."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    starts = range(0, len(episode.frames), CHUNK)
    chunks = [compressor.compress(episode.frames[s : s + CHUNK].tobytes()) for s in starts]
    offsets = np.cumsum([0, *map(len, chunks)], dtype=np.int64)
    tensors: dict[str, NDArray[Any]] = {
        "frames": np.frombuffer(b"".join(chunks), dtype=np.uint8),
        "chunk_offsets": offsets,
        **{name: np.ascontiguousarray(getattr(episode, name)) for name in _FIELDS},
    }
    header = _Header(EPISODE_FORMAT, episode.frames.shape, episode.actions.shape[1], int(episode.seed))
    # One key: safetensors does not keep the order of several, and equal episodes must give equal bytes.
    return to_safetensors(tensors, metadata={"vqvideo": json.dumps(vars(header))})


class EpisodeReader:
    """Random access to one episode's file. Opening it checks the header and reads everything but the frames.

    No file stays open: of thousands of episodes each is read a little at a time, in forked processes too.

    Raises:
        InputError: no such file, another format, or declared sizes that do not fit together.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        text = self._read_header()
        try:
            with safe_open(self.path, framework="np") as file:  # refuses tensors that overlap or leave the file
                header = json.loads(text)
                self.shape, self.action_size, self.seed = self._read_facts(header.pop("__metadata__", {}))
                self._check_layout(header)
                self._offsets: NDArray[np.int64] = file.get_tensor("chunk_offsets")
                self.steps = Steps(*(file.get_tensor(name) for name in _FIELDS))
        except (SafetensorError, OSError) as error:
            raise InputError(f"{self.path}: not a readable episode ({error}); it is damaged") from error
        first, stop = header["frames"]["data_offsets"]
        self._check_offsets(stop - first)
        self._frames_begin = 8 + len(text) + first

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
        result = self._room(stop - start)
        with self._opened() as file:
            for index in range(start // CHUNK, -(-stop // CHUNK)):
                first = index * CHUNK
                begin, end = max(start, first), min(stop, first + CHUNK)
                result[begin - start : end - start] = self._chunk(file, index)[begin - first : end - first]
        return result

    def episode(self) -> Episode:
        """The whole episode, decoded."""
        return Episode(self.frames(0, self.shape[0]), *self.steps, seed=self.seed)

    def check_steps(self, space: ActionSpace) -> None:
        """Raises InputError unless actions, rewards and flags are what an episode with actions in `space` can hold."""
        try:
            for name in ("terminated", "truncated"):
                if (getattr(self.steps, name).view(np.uint8) > 1).any():
                    raise InputError(f"{name}: found a byte that is neither 0 nor 1")
            self.steps.validate(space)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error

    def _room(self, count: int) -> NDArray[np.uint8]:
        try:
            return np.empty((count, *self.shape[1:]), dtype=np.uint8)
        except MemoryError as error:
            raise InputError(f"{self.path}: {count} frames of {self.shape[1:]} do not fit into memory") from error

    @contextmanager
    def _opened(self) -> Iterator[io.FileIO]:
        try:
            with open(self.path, "rb", buffering=0) as file:
                yield file
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error})") from error

    def _read_header(self) -> bytes:
        check_regular(self.path)
        with self._opened() as file:
            size = int.from_bytes(file.read(8), "little")
            if size > _MAX_HEADER_BYTES:
                raise InputError(f"{self.path}: not a readable episode (a header of {size} bytes); it is damaged")
            return file.read(size)

    def _read_facts(self, metadata: dict[str, str]) -> tuple[tuple[int, int, int, int], int, int]:
        if "vqvideo" not in metadata:
            raise InputError(f"{self.path}: a safetensors file, but not one of our episodes")
        header = typed(_Header, parse_json(metadata["vqvideo"].encode(), self.path), f"{self.path}: header")
        if header.format_version != EPISODE_FORMAT:
            found = reprlib.repr(header.format_version)
            raise InputError(f"{self.path}: format version {found}, this version reads {EPISODE_FORMAT}")
        shape = header.shape
        if shape[3] != 3 or not 2 <= shape[0] <= MAX_STEPS + 1:
            raise InputError(f"{self.path}: header declares frames {reprlib.repr(shape)}, expected (T+1, h, w, 3)")
        check_frame_size(shape[1:3], self.path)
        return shape, header.actions, header.seed

    def _check_layout(self, found: dict[str, Any]) -> None:
        steps, size = self.length, self.action_size
        expected = {
            "chunk_offsets": ("I64", [-(-self.shape[0] // CHUNK) + 1]),
            "actions": ("F64", [steps, size]),
            "rewards": ("F32", [steps]),
            "terminated": ("BOOL", [steps]),
            "truncated": ("BOOL", [steps]),
        }
        layout = {name: (tensor["dtype"], tensor["shape"]) for name, tensor in found.items()}
        dtype, row = layout.pop("frames", ("", []))
        if layout != expected or dtype != "U8" or len(row) != 1:
            raise InputError(f"{self.path}: holds frames {dtype} {row} and {layout!s:.500}, expected U8 and {expected}")

    def _check_offsets(self, size: int) -> None:
        sizes = np.diff(self._offsets)
        if self._offsets[0] != 0 or self._offsets[-1] != size or (sizes <= 0).any():
            raise InputError(f"{self.path}: chunk_offsets do not cover the frames: the file is damaged")
        # All chunks but the last are full.
        if (sizes[:-1] * _MOST_ZSTD < CHUNK * math.prod(self.shape[1:])).any():
            raise InputError(
                f"{self.path}: chunks too small for the frames that the header declares: the file is damaged"
            )

    def _chunk(self, file: io.FileIO, index: int) -> NDArray[np.uint8]:
        shape = (min(CHUNK, self.shape[0] - index * CHUNK), *self.shape[1:])
        begin, end = (int(offset) for offset in self._offsets[index : index + 2])
        file.seek(self._frames_begin + begin)
        blob = file.read(end - begin)
        try:
            # zstd allocates what the chunk itself declares, so that is compared before decoding.
            declared = zstandard.get_frame_parameters(blob).content_size
            if declared != math.prod(shape):
                raise InputError(f"{self.path}: chunk {index} declares {declared} bytes, expected {math.prod(shape)}")
            pixels = zstandard.ZstdDecompressor().decompress(blob, max_output_size=math.prod(shape))
        except zstandard.ZstdError as error:
            raise InputError(f"{self.path}: chunk {index} of the frames is damaged ({error})") from error
        return np.frombuffer(pixels, dtype=np.uint8).reshape(shape)
