r"""The .vqv file: a header, then chunks that stand alone, then an end that says how many there were.

    magic       b"\x93VQV\r\n\x1a\n"
    header      u32 length, JSON, u32 CRC32 of the JSON
    chunk       b"CHNK", u32 length, payload, u32 CRC32 of the payload, begun from the four bytes before this chunk
    ...
    end         b"DONE", u32 frames, u32 CRC32 of these four bytes, begun likewise; nothing follows

All numbers are little-endian. Each checksum (zlib's `crc32(bytes, begin)`) is begun from the one before: so a chunk of
another file, or from elsewhere in this one, does not pass.

The payload of a chunk: u32 frames, u32 times coded flat, u32 bytes of actions; the numbers of those times as u32; the
actions; and the words of the range coder as u32. Its first latent step is coded flat, so decoding can begin at any
chunk. The actions (frames, a): u8 4 or 8, whether float32 or float64, then by Zstandard the first bytes of all numbers,
the second ones, ...
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import BinaryIO

import numpy as np
import zstandard
from numpy.typing import NDArray

from vqvideo.codec.range_coder import Words
from vqvideo.errors import InputError, whole
from vqvideo.storage.files import parse_json
from vqvideo.storage.records import to_plain, typed

MAGIC = b"\x93VQV\r\n\x1a\n"
VERSION = 2
_CHUNK, _END = b"CHNK", b"DONE"
_NUMBER, _NUMBERS = struct.Struct("<I"), struct.Struct("<III")
CHUNK_OVERHEAD = 4 + _NUMBER.size + _NUMBERS.size + _NUMBER.size
"""Bytes of a chunk beside its codes, its actions, and the numbers of the times that it was coded flat."""
_MAX_HEADER, _MAX_CHUNK = 2**20, 2**28


@dataclass(frozen=True)
class Header:
    """What a file says before its chunks."""

    version: int
    """Of the layout."""
    coder: str
    """Entropy coder and the part of its version that counts."""
    tables: str
    """What the tables of the coder are made of."""
    tokenizer: str
    """Fingerprint of what made the codes."""
    model: str
    """Fingerprint of the world whose prior expects them; "" for their frequencies alone."""
    frames_per_second: float
    frame_size: tuple[int, int]
    """(h, w) in pixels."""
    chunk: int
    """Latent steps of a chunk; the last one may have fewer."""
    actions: int
    """Columns of the actions between two frames."""
    source: str = ""
    """What was encoded, for people."""

    def __post_init__(self) -> None:
        if not 0 < self.frames_per_second < inf:
            raise InputError(f"{self.frames_per_second} frames per second, expected more than none")


@dataclass(frozen=True, eq=False)
class Chunk:
    """A piece of a film that stands alone."""

    frames: int
    """How many of those that its codes give belong to the film."""
    flat: tuple[int, ...]
    """Which times the model was not used."""
    actions: NDArray[np.float64]
    """(steps, a): those between its frames, and those that led to it from the chunk before, the first row."""
    words: Words
    """Of the range coder."""


# ---------------------------------------------------------------- writing


class Writer:
    """Writes a file, and begins it."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        text = json.dumps(to_plain(header)).encode()
        self._file, self._check = file, zlib.crc32(text)
        self.frames = self.bytes = self.action_bytes = 0
        """Of the chunks so far."""
        file.write(MAGIC + _NUMBER.pack(len(text)) + text + _NUMBER.pack(self._check))

    def add(self, chunk: Chunk) -> None:
        """Adds a chunk."""
        actions = _packed(chunk.actions)
        payload = _NUMBERS.pack(chunk.frames, len(chunk.flat), len(actions))
        payload += np.array(chunk.flat, "<u4").tobytes() + actions + chunk.words.astype("<u4").tobytes()
        self.bytes += self._file.write(_CHUNK + _NUMBER.pack(len(payload)) + payload + self._checked(payload))
        self.frames, self.action_bytes = self.frames + chunk.frames, self.action_bytes + len(actions)

    def end(self) -> None:
        """Ends the file."""
        count = _NUMBER.pack(self.frames)
        self._file.write(_END + count + self._checked(count))

    def _checked(self, content: bytes) -> bytes:
        self._check = zlib.crc32(content, self._check)
        return _NUMBER.pack(self._check)


def _packed(actions: NDArray[np.float64]) -> bytes:
    if not actions.size:
        return b""
    exact = (actions.astype("<f4").astype(np.float64) == actions).all()
    values = actions.astype("<f4" if exact else "<f8")
    # The bytes of numbers that resemble each other do too, at the same place.
    planes = values.reshape(-1, 1).view(np.uint8).T
    return bytes([values.itemsize]) + zstandard.compress(planes.tobytes(), 19)


# ---------------------------------------------------------------- reading


def read_header(file: BinaryIO) -> Header:
    """The header of a file. InputError, with what was found, for another or a damaged one."""
    return read(file)[0]


def read(file: BinaryIO) -> tuple[Header, Iterator[Chunk]]:
    """The header of a file, and its chunks as they are asked for.

    Raises:
        InputError: another file or a damaged one, at once or where the damage is; it says at which frame.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise InputError("not a .vqv file: it begins otherwise")
    text, check = _checked(file, _MAX_HEADER, 0, "the header")
    record = parse_json(text, "the header")
    found = record.get("version") if isinstance(record, dict) else None
    if found != VERSION:
        raise InputError(f"a .vqv file of version {found!r:.40}, expected {VERSION}: the header")
    header = typed(Header, record, "the header")
    return header, _chunks(file, header.actions, check)


def _chunks(file: BinaryIO, actions: int, check: int) -> Iterator[Chunk]:
    """The chunks behind a header with this checksum, whose actions have so many columns."""
    frames, number = 0, 0
    while (mark := file.read(4)) == _CHUNK:
        where = f"chunk {number}, from frame {frames} on"
        payload, check = _checked(file, _MAX_CHUNK, check, where)
        chunk = _chunk(payload, actions, where)
        yield chunk
        frames, number = frames + chunk.frames, number + 1
    if mark != _END:
        raise InputError(f"the file ends or is damaged after frame {frames}: expected another chunk or an end")
    count, end = _exactly(file, 4, "the end"), _exactly(file, 4, "the end")
    if _NUMBER.unpack(end)[0] != zlib.crc32(count, check) or _NUMBER.unpack(count)[0] != frames:
        raise InputError(f"the end of the file is damaged, or chunks are missing: {frames} frames were found")
    if file.read(1):
        raise InputError(f"something follows the end of the file, after frame {frames}")


def part(chunks: Iterator[Chunk], first: int, count: int | None) -> Iterator[tuple[int, Chunk, slice]]:
    """The chunks that hold `count` frames of a film from number `first` on, or all from there on: the number of the
    first frame of each, the chunk, and which of its frames those are. Reads no further than it must.

    Raises:
        InputError: no such frames, once all that there are have been given.
    """
    begin, first = 0, whole(first, "the first frame", least=0)
    end = sys.maxsize if count is None else first + whole(count, "the number of frames")
    for chunk in chunks:
        stop = begin + chunk.frames
        if stop > first:
            yield begin, chunk, slice(max(begin, first) - begin, min(stop, end) - begin)
        begin = stop
        if begin >= end:
            return
    if count is not None or begin <= first:
        asked = f"frame {first}" if count in (None, 1) else f"frames {first} to {end - 1}"
        raise InputError(f"{asked} asked for, expected 0 to {begin - 1}: the film has {begin} frames")


def _checked(file: BinaryIO, most: int, check: int, where: str) -> tuple[bytes, int]:
    """What stands there, and its checksum, begun from the one before."""
    (length,) = _NUMBER.unpack(_exactly(file, 4, where))
    if length > most:
        raise InputError(f"{where}: {length} bytes, expected at most {most}: damaged")
    payload = _exactly(file, length, where)
    check = zlib.crc32(payload, check)
    if _NUMBER.unpack(_exactly(file, 4, where))[0] != check:
        raise InputError(f"{where}: its checksum is wrong: damaged, or of another file")
    return payload, check


def _exactly(file: BinaryIO, count: int, where: str) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise InputError(f"{where}: the file ends there")
    return content


def _chunk(payload: bytes, columns: int, where: str) -> Chunk:
    if len(payload) < _NUMBERS.size:
        raise InputError(f"{where}: {len(payload)} bytes: damaged")
    frames, flat, size = _NUMBERS.unpack_from(payload)
    begin = _NUMBERS.size + 4 * flat
    rest = len(payload) - begin - size
    if not frames or rest < 0 or rest % 4:
        raise InputError(f"{where}: {frames} frames in {len(payload)} bytes: damaged")
    numbers = tuple(np.frombuffer(payload, "<u4", flat, _NUMBERS.size).tolist())
    actions = _actions(payload[begin : begin + size], frames, columns, where)
    return Chunk(frames, numbers, actions, np.frombuffer(payload, "<u4", offset=begin + size).astype(np.uint32))


def _actions(content: bytes, frames: int, columns: int, where: str) -> NDArray[np.float64]:
    if not columns:
        return np.zeros((frames, 0))
    width = content[0] if content[:1] in (b"\4", b"\10") else 0
    expected = width * frames * columns
    try:
        unpacked = zstandard.ZstdDecompressor().decompress(content[1:], max_output_size=expected)
    except zstandard.ZstdError as error:
        raise InputError(f"{where}: actions that cannot be read ({error}): damaged") from error
    if not width or len(unpacked) != expected:
        raise InputError(f"{where}: {len(unpacked)} bytes of actions, expected {expected}: damaged")
    values = np.frombuffer(unpacked, np.uint8).reshape(width, -1).T.copy().view(f"<f{width}")
    return values.reshape(frames, columns).astype(np.float64)
