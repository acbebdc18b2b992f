"""ArrayRecord files: compressed chunks of records, which the package array_record reads.

It unpacks whatever a chunk says that it holds; so what chunks say is looked at before.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from vqvideo.data.formats.tfrecord import MAX_RECORD
from vqvideo.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from array_record.python.array_record_module import ArrayRecordReader

ARRAY_RECORD = re.compile(r"\.array_record(-\d+-of-\d+)?$")
"""How the names of such files end."""
_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
"""Nothing is read ahead: records are read one by one."""
_BLOCK, _BLOCK_HEADER = 2**16, 24
_CHUNK_HEADER = struct.Struct("<8xQ8xQQ")
"""Bytes that follow; kind and number of records in one; bytes that they become. Between them are checksums."""


class ArrayRecords:
    """The records of a file; one is in memory at a time.

    Raises:
        MissingExtraError: the package is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import array_record.python.array_record_module  # noqa: F401
        except ImportError as error:
            raise MissingExtraError(error, "formats") from error
        self.path, self.size, self._count = path, 0, 0
        self.broken: InputError | None = None
        """Why none of the records can be read."""
        try:
            self.size = path.stat().st_size
            self._check()
            self._count = self._opened().num_records()
        except InputError as error:
            self.broken = error
        except (OSError, RuntimeError, ValueError) as error:
            self.broken = self._unreadable(error)

    def __len__(self) -> int:
        return self._count

    def read(self, number: int) -> bytes:
        """The data of a record. InputError if they are not those that were written."""
        try:
            (data,) = self._opened().read([number])
        except (OSError, RuntimeError, ValueError, IndexError) as error:
            raise InputError(f"{self.path}: record {number} cannot be read ({error!s:.200}): damaged") from error
        return bytes(data)

    def _opened(self) -> ArrayRecordReader:
        from array_record.python.array_record_module import ArrayRecordReader

        reader = ArrayRecordReader(str(self.path), _OPTIONS)
        if not reader.ok():
            raise self._unreadable("its end is missing or damaged")
        return reader

    def _check(self) -> None:
        with self.path.open("rb") as file:
            for place, size in chunks(file, self.size):
                if size > MAX_RECORD:
                    raise InputError(
                        f"{self.path}: at byte {place} are {size} bytes of records, packed together, expected at most "
                        f"{MAX_RECORD}: write them with group_size:1"
                    )

    def _unreadable(self, why: object) -> InputError:
        return InputError(f"{self.path}: no ArrayRecord file that can be read ({why!s:.200}): is it cut off?")


def chunks(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Where each chunk of a file begins, and how many bytes it becomes when it is unpacked.

    Chunks follow each other; headers of 24 bytes interrupt them every 64 KiB (https://github.com/google/riegeli,
    records/format). ValueError for what is no such file.
    """
    place = 0
    while place < size:
        header = _read(file, place, _CHUNK_HEADER.size)
        if len(header) < _CHUNK_HEADER.size:
            raise ValueError(f"it ends inside of what begins at byte {place}")
        length, kind_and_count, unpacked = _CHUNK_HEADER.unpack(header)
        if place == 0 and (length, kind_and_count & 0xFF) != (0, ord("s")):
            raise ValueError("its beginning is another one")
        yield place, unpacked
        behind = _physical(_logical(place) + _CHUNK_HEADER.size + length)
        # Every record has a place of its own, even if it takes no room.
        place = max(behind, _possible(place + (kind_and_count >> 8)))
    if place > size:
        raise ValueError(f"{size} bytes, expected {place}")


def _read(file: BinaryIO, place: int, length: int) -> bytes:
    """What is at a place, without the headers of blocks."""
    found = b""
    while len(found) < length:
        inside = place % _BLOCK
        if inside < _BLOCK_HEADER:
            place += _BLOCK_HEADER - inside
        file.seek(place)
        piece = file.read(min(length - len(found), _BLOCK - place % _BLOCK))
        if not piece:
            break
        found, place = found + piece, place + len(piece)
    return found


def _logical(place: int) -> int:
    """How many bytes are before a place, without the headers of blocks."""
    blocks, inside = divmod(place, _BLOCK)
    return blocks * (_BLOCK - _BLOCK_HEADER) + max(inside - _BLOCK_HEADER, 0)


def _physical(count: int) -> int:
    """The place before which there are so many bytes."""
    blocks, inside = divmod(count, _BLOCK - _BLOCK_HEADER)
    return blocks * _BLOCK + (inside + _BLOCK_HEADER if inside else 0)


def _possible(place: int) -> int:
    """The first place from there on at which a chunk can begin: not inside of the header of a block."""
    inside = place % _BLOCK
    return place + _BLOCK_HEADER - inside if 0 < inside < _BLOCK_HEADER else place
