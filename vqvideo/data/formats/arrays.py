"""Episodes in NumPy's files: an npz with frames and actions each, or a folder of frames.npy, actions.npy each."""

from __future__ import annotations

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
from vqvideo.data.formats.tables import header_of, members
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
        for name in (name for name in found if name.suffix.lower() == ".npz"):
            yield name.as_posix(), lambda path=self.path / name: Archive(path)  # type: ignore[misc]
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
    """The arrays of an npz file. They are unpacked as they are read, and what holds objects is left out."""

    fps: float | None = None
    whole = False

    def __init__(self, path: Path) -> None:
        self.path, self.where = path, str(path)
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
        self.arrays[name].check_size(f"{self.path}: {name}")
        with _readable(self.path), zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as file:
            return npy.read_array(file, allow_pickle=False, max_header_size=_MAX_HEADER)[first:after]


class _Unpacked(Part):
    """Rows of an array of an npz file, of which a block is in memory at a time."""

    def __init__(self, archive: Archive, name: str, first: int, after: int) -> None:
        super().__init__(archive.arrays[name], first, after)
        self.archive, self.name = archive, name

    def __iter__(self) -> Iterator[NDArray[Any]]:
        path = self.archive.path
        with _readable(path), zipfile.ZipFile(path) as archive, archive.open(f"{self.name}.npy") as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            _, columns_first, _ = read(file, max_header_size=_MAX_HEADER)
            if columns_first:
                yield self.archive.column(self.name, self.first, self.after)
                return
            yield from self._in_blocks(file)

    def _in_blocks(self, file: Any) -> Iterator[NDArray[Any]]:
        frame, dtype = self.header.shape[1:], self.header.dtype
        row = int(np.prod(frame, dtype=object)) * dtype.itemsize
        step, start = block_length(self.header.shape, dtype), 0
        while start < self.after:
            # What comes before is unpacked too: a compressed file has no other way there.
            after = min(start + step, self.first if start < self.first else self.after)
            content = file.read((after - start) * row)
            if len(content) < (after - start) * row:
                raise InputError(f"{self.archive.path}: {self.name} ends before row {after - 1}, expected {self.after}")
            if start >= self.first:
                yield np.frombuffer(content, dtype).reshape(after - start, *frame)
            start = after


class Folder:
    """The npy files of a folder, mapped."""

    fps: float | None = None
    whole = False

    def __init__(self, path: Path) -> None:
        self.path, self.where = path, str(path)
        self._mapped: dict[str, NDArray[Any]] = {}
        files = sorted(file for file in path.glob("*.npy") if file.is_file() and not file.name.startswith("."))
        for file in files:
            with _readable(file):
                # Of objects it maps nothing, and raises.
                array = npy.open_memmap(file, mode="r", max_header_size=_MAX_HEADER)
            if array.dtype.kind in "fiub" and array.ndim:
                self._mapped[file.stem] = array
        self.arrays = {name: Header(array.shape, array.dtype) for name, array in self._mapped.items()}
        self.size = sum(file.stat().st_size for file in files)

    def blocks(self, name: str, first: int, after: int) -> Blocks:
        """As `Container`."""
        return Sliced(self._mapped[name], first, min(after, len(self._mapped[name])))

    def column(self, name: str, first: int, after: int) -> NDArray[Any]:
        """As `Container`."""
        return np.asarray(self._mapped[name][first:after])
