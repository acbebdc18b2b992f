"""Episodes in NumPy's files: an npz with frames and actions each, or a folder of frames.npy, actions.npy each."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from vqvideo.data.files_below import files_below
from vqvideo.data.formats.contained import ContainedReader, Container, Header, Part
from vqvideo.data.formats.pictures import Blocks, Sliced, block_length
from vqvideo.data.formats.tables import MAX_ARRAY, header_of, members
from vqvideo.errors import InputError

_ENDINGS = frozenset({".npz", ".npy"})
_MAX_HEADER = 2**16


class Arrays(ContainedReader):
    """All npz files below a folder, and all folders with npy files, or one of either."""

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether there are files of NumPy."""
        return path.suffix.lower() == ".npz" if path.is_file() else bool(files_below(path, _ENDINGS)[0])

    def containers(self) -> Iterator[tuple[str, Callable[[], Container]]]:
        """As `ContainedReader`."""
        if self.path.is_file():
            yield "", lambda: Archive(self.path)
            return
        found, listed = files_below(self.path, _ENDINGS)
        if not found:
            said = (
                f"no npz or npy files ({listed or 'it is empty'})" if self.path.is_dir() else "no such file or folder"
            )
            raise InputError(f"{self.path}: {said}")
        kept = Kept()
        for name in (name for name in found if name.suffix.lower() == ".npz"):
            yield name.as_posix(), lambda path=self.path / name: Archive(path, kept)  # type: ignore[misc]
        for name in sorted({name.parent for name in found if name.suffix.lower() == ".npy"}):
            inside = "" if name == Path() else name.as_posix()
            yield inside, lambda path=self.path / name: Folder(path)  # type: ignore[misc]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError, NotImplementedError, zipfile.error) as error:
        raise InputError(f"{path}: no arrays of NumPy that can be read ({error})") from error


class Archive:
    """The arrays of an npz file. They are unpacked as they are read, and what holds objects is left out.

    Args:
        path: of the file.
        kept: where columns are kept, of which one episode after the other is asked; shared by files that are read
            one after the other.
    """

    fps: float | None = None
    whole = False

    def __init__(self, path: Path, kept: Kept | None = None) -> None:
        self.path, self.where, self.kept = path, str(path), kept or Kept()
        self.arrays: dict[str, Header] = {}
        with _readable(path), zipfile.ZipFile(path) as archive:
            self.size = path.stat().st_size
            for name in members(archive):
                shape, dtype = header_of(archive, name, path)
                if dtype.kind in "fiub" and shape:
                    self._check(archive, name, shape, dtype)
                    self.arrays[name] = Header(shape, dtype)

    def _check(self, archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        said, held = int(np.prod(shape, dtype=object)) * dtype.itemsize, archive.getinfo(f"{name}.npy").file_size
        if said > held or min(shape) < 0:
            raise InputError(f"{self.path}: {name} says {said} bytes of {dtype} {shape}, expected at most {held}")

    def blocks(self, name: str, first: int, after: int) -> Blocks:
        """As `Container`."""
        return _Unpacked(self, name, first, after)

    def column(self, name: str, first: int, after: int) -> NDArray[Any]:
        """As `Container`."""
        return self.kept.column(self, name)[first:after]

    def whole_column(self, name: str) -> NDArray[Any]:
        """All rows of an array, unpacked."""
        self.arrays[name].check_size(f"{self.path}: {name}")
        with _readable(self.path), zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as file:
            return npy.read_array(file, allow_pickle=False, max_header_size=_MAX_HEADER)


class Kept:
    """The columns of the archive that was read last, so that each is unpacked once, and not for each episode."""

    def __init__(self) -> None:
        self._path, self._columns = Path(), dict[str, NDArray[Any]]()

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        """Other processes unpack them themselves."""
        return Kept, ()

    def column(self, archive: Archive, name: str) -> NDArray[Any]:
        """One of them."""
        if archive.path != self._path:
            self._path, self._columns = archive.path, {}
        if name not in self._columns:
            size = sum(column.nbytes for column in self._columns.values()) + archive.arrays[name].bytes
            if size > MAX_ARRAY:
                self._columns = {}
            self._columns[name] = archive.whole_column(name)
        return self._columns[name]


class _Unpacked(Part):
    """Rows of an array of an npz file, of which a block is in memory at a time."""

    def __init__(self, archive: Archive, name: str, first: int, after: int) -> None:
        super().__init__(archive.arrays[name], first, after)
        self.archive, self.name = archive, name

    def __iter__(self) -> Iterator[NDArray[Any]]:
        path = self.archive.path
        with _readable(path):
            unpacking = _parked.pop(_key(path, self.name), None)
            if unpacking is None or unpacking.row > self.first:
                unpacking = _Unpacking(path, self.name, self.header)
            if unpacking.columns_first:
                yield self.archive.column(self.name, self.first, self.after)
                return
            yield from self._in_blocks(unpacking)

    def _in_blocks(self, unpacking: _Unpacking) -> Iterator[NDArray[Any]]:
        step = block_length(self.header.shape, self.header.dtype)
        try:
            while unpacking.row < self.after:
                # What comes before is unpacked too: a compressed file has no other way there.
                before = unpacking.row < self.first
                block = unpacking.read(min(unpacking.row + step, self.first if before else self.after))
                if not before:
                    yield block
        finally:
            _parked.clear()
            _parked[_key(self.archive.path, self.name)] = unpacking


class _Unpacking:
    """An array of an npz file that is unpacked up to some row."""

    def __init__(self, path: Path, name: str, header: Header) -> None:
        self.where, self.header, self.row = f"{path}: {name}", header, 0
        self._file = zipfile.ZipFile(path).open(f"{name}.npy")  # noqa: SIM115  (open until another is read)
        version = npy.read_magic(self._file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        _, self.columns_first, _ = read(self._file, max_header_size=_MAX_HEADER)

    def read(self, after: int) -> NDArray[Any]:
        """The rows from here to the one before `after`."""
        dtype, shape = self.header.dtype, (after - self.row, *self.header.shape[1:])
        # Where reading fails it is not known; then nobody goes on from here.
        self.row = sys.maxsize
        content = self._file.read(Header(shape, dtype).bytes)
        if len(content) < Header(shape, dtype).bytes:
            raise InputError(f"{self.where} ends before row {after - 1}, expected {self.header.shape[0]}")
        self.row = after
        return np.frombuffer(content, dtype).reshape(shape)


_parked: dict[Any, _Unpacking] = {}
"""What was unpacked last, where the next episode goes on; at most one."""


def _key(path: Path, name: str) -> Any:
    """Of an array in the file as it is now, and of this process: those that fork share the place in the file."""
    found = path.stat()
    return os.getpid(), path, name, found.st_ino, found.st_mtime_ns


class Folder:
    """The npy files of a folder, mapped."""

    fps: float | None = None
    whole = False

    def __init__(self, path: Path) -> None:
        self.path, self.where = path, str(path)
        self.arrays: dict[str, Header] = {}
        files = sorted(file for file in path.glob("*.npy") if file.is_file() and not file.name.startswith("."))
        for file in files:
            array = self.mapped(file.stem)
            if array.dtype.kind in "fiub" and array.ndim:
                self.arrays[file.stem] = Header(array.shape, array.dtype)
        self.size = sum(file.stat().st_size for file in files)

    def blocks(self, name: str, first: int, after: int) -> Blocks:
        """As `Container`."""
        return _MappedRows(self, name, first, after)

    def column(self, name: str, first: int, after: int) -> NDArray[Any]:
        """As `Container`."""
        return np.asarray(self.mapped(name)[first:after])

    def mapped(self, name: str) -> NDArray[Any]:
        """An array, of which what is looked at is read."""
        path = self.path / f"{name}.npy"
        with _readable(path):
            # Of objects it maps nothing, and raises.
            return npy.open_memmap(path, mode="r", max_header_size=_MAX_HEADER)


class _MappedRows(Part):
    """Rows of an array of a folder, which is mapped while they are read: other processes need its name alone."""

    def __init__(self, folder: Folder, name: str, first: int, after: int) -> None:
        super().__init__(folder.arrays[name], first, after)
        self.folder, self.name = folder, name

    def __iter__(self) -> Iterator[NDArray[Any]]:
        yield from Sliced(self.folder.mapped(self.name), self.first, self.after)
