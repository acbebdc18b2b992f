"""Arrays of bytes in idx files, in which MNIST came: four bytes of kind, the sizes, then all values."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from vqvideo.errors import InputError

_MOST_BYTES = 2**31
"""Of an array. That of MNIST's training images has 47 million."""
_PACKED_AT_MOST = 1100
"""Bytes to which gzip unpacks one byte: deflate cannot do more than 1032."""


class Idx:
    """An array of unsigned bytes in a file, packed by gzip if it is called .gz. Only its header is read until it is
    asked for.

    Args:
        path: of the file.
        dimensions: that it should have: 3 of images, 1 of labels.

    Raises:
        InputError: it is no such file, is truncated, or would be too large.
    """

    def __init__(self, path: Path, dimensions: int) -> None:
        self.path = path
        self.packed = path.suffix.lower() == ".gz"
        self.size = path.stat().st_size
        expected = bytes((0, 0, 8, dimensions))
        with _readable(path), self._opened() as file:
            kind, sizes = file.read(4), file.read(4 * dimensions)
        if kind != expected:
            raise InputError(
                f"{path} begins with {kind!r}, expected {expected!r}: an idx file of bytes with {dimensions} "
                "dimensions. Download it again"
            )
        if len(sizes) < 4 * dimensions:
            raise InputError(f"{path} ends within its header: it is truncated. Download it again")
        self.shape = tuple(np.frombuffer(sizes, ">u4").tolist())
        self._check_size()

    def array(self) -> NDArray[np.uint8]:
        """All values, mapped from the file or unpacked. InputError if there are not as many as the header says."""
        if not self.packed:
            return np.memmap(self.path, np.uint8, "r", self._header, self.shape)
        return np.frombuffer(_unpacked(self, self.path.stat().st_mtime_ns), np.uint8, offset=self._header).reshape(
            self.shape
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Idx) and (self.path, self.size) == (other.path, other.size)

    def __hash__(self) -> int:
        return hash((self.path, self.size))

    def unpack(self) -> bytes:
        """All bytes of the file."""
        with _readable(self.path), self._opened() as file:
            content = file.read(self._bytes + 1)
        self._check_count(len(content), more=len(content) > self._bytes)
        return content

    @property
    def _header(self) -> int:
        return 4 + 4 * len(self.shape)

    @property
    def _bytes(self) -> int:
        return self._header + prod(self.shape)

    def _opened(self) -> BinaryIO:
        return gzip.open(self.path) if self.packed else self.path.open("rb")  # type: ignore[return-value]

    def _check_size(self) -> None:
        """Before anything is unpacked."""
        most = min(_MOST_BYTES, self.size * _PACKED_AT_MOST if self.packed else _MOST_BYTES)
        if self._bytes > most:
            raise InputError(
                f"{self.path}: its header says {self._bytes} bytes of shape {self.shape}, expected at most {most}: it "
                "is truncated or no file of images or labels. Download it again"
            )
        if not self.packed:
            self._check_count(self.size)

    def _check_count(self, found: int, *, more: bool = False) -> None:
        if found != self._bytes:
            raise InputError(
                f"{self.path}: {'more than ' if more else ''}{found - more} bytes, expected {self._bytes} of shape "
                f"{self.shape}: it is {'damaged' if found > self._bytes else 'truncated'}. Download it again"
            )


@lru_cache(maxsize=2)
def _unpacked(file: Idx, changed: int) -> bytes:
    """Images and labels that were read last: an import asks for the same ones in each of its jobs."""
    return file.unpack()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}). Download it again") from error
