"""TFRecord files: a length, its checksum, the data, their checksum, one record behind the other."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from vqvideo.data.formats.crc32c import crc32c
from vqvideo.errors import InputError

TFRECORD = re.compile(r"\.tfrecord(-\d+-of-\d+)?$")
"""How the names of such files end."""
MAX_RECORD = 2**31
"""Bytes of a record, above which it is none: the messages in it cannot be larger."""
_MOST_RECORDS = 2**20
"""Of a file: each is remembered."""
_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")


class Span(NamedTuple):
    """Where the data of a record lie."""

    first: int
    """Byte of the file."""
    length: int
    """Bytes."""


class TFRecords:
    """The records of a file. Making it reads only what stands before each of them; data are read one by one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spans: list[Span] = []
        self.broken: InputError | None = None
        """What is wrong behind these records: a length is damaged, or leads beyond the end of the file."""
        try:
            self.size = path.stat().st_size
            # Only headers are read: more than these would be thrown away.
            with path.open("rb", buffering=0) as file:
                while (place := self._next()) < self.size:
                    self.spans.append(self._span(file, place))
        except InputError as error:
            self.broken = error
        except OSError as error:
            self.broken = InputError(f"{path}: cannot be read ({error.strerror or error})")

    def __len__(self) -> int:
        return len(self.spans)

    def read(self, number: int) -> bytes:
        """The data of a record. InputError if they are not those that were written."""
        first, length = self.spans[number]
        try:
            with self.path.open("rb") as file:
                file.seek(first)
                data = file.read(length)
                footer = file.read(_FOOTER.size)
        except OSError as error:
            raise InputError(f"{self.path}: record {number} cannot be read ({error.strerror or error})") from error
        if len(data) < length or len(footer) < _FOOTER.size:
            raise InputError(f"{self.path}: record {number} at byte {first} is cut off: the file has become shorter")
        if _FOOTER.unpack(footer)[0] != masked(data):
            raise InputError(
                f"{self.path}: record {number} at byte {first}: its {length} bytes do not fit their checksum: damaged"
            )
        return data

    def _next(self) -> int:
        """Where the next record begins."""
        return sum(self.spans[-1]) + _FOOTER.size if self.spans else 0

    def _span(self, file: BinaryIO, place: int) -> Span:
        where = f"{self.path}: record {len(self.spans)} at byte {place}"
        if len(self.spans) == _MOST_RECORDS:
            raise InputError(f"{where}: more than {_MOST_RECORDS} records: distribute them over several files")
        file.seek(place)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise InputError(f"{where} is cut off: {len(header)} bytes, expected {_HEADER.size} of its length")
        length, checksum = _HEADER.unpack(header)
        if checksum != masked(header[:8]):
            raise InputError(f"{where}: its length does not fit its checksum: damaged, compressed, or no TFRecord file")
        span = Span(place + _HEADER.size, length)
        room = self.size - span.first - _FOOTER.size
        if length > room:
            raise InputError(f"{where}: {length} bytes, and {max(room, 0)} are there: the file is cut off")
        if length > MAX_RECORD:
            raise InputError(f"{where}: {length} bytes, expected at most {MAX_RECORD}")
        return span


def masked(data: bytes) -> int:
    """The checksum of some bytes in the form in which it is stored."""
    found = crc32c(data)
    return (((found >> 15) | (found << 17)) + 0xA282EAD8) & 0xFFFFFFFF
