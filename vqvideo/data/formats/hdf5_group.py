"""The arrays of a group of HDF5, and what is refused of them: links, other files, and what memory cannot hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.formats.columns import ROLES
from vqvideo.data.formats.contained import Header, Part
from vqvideo.data.formats.pictures import Blocks, block_length
from vqvideo.data.formats.tables import MAX_ARRAY
from vqvideo.errors import InputError, MissingExtraError

_MOST_ARRAYS = 100_000
_MAX_IMAGE = 2**28
"""Bytes of an encoded image."""
_IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG")
COUNTED = re.compile(r"frame_(\d+)_x$")
"""An array for each frame."""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An HDF5 file. InputError for what goes wrong while it is read."""
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError(error, "formats") from error
    with suppress(ImportError):
        import hdf5plugin  # noqa: F401  (it registers filters)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    # Of a damaged file the library raises what comes to it.
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        said = str(error).replace(str(path), "")
        # Newer ones only tell that they looked for it in vain.
        if "filter" in said or "plugin" in said:
            raise InputError(
                f"{path}: its data are compressed in a way that another package reads ({error}): pip install hdf5plugin"
            ) from error
        raise InputError(f"{path}: not an HDF5 file that can be read ({error})") from error


def child(group: Any, name: str, where: str) -> Any:
    """What lies in a group. InputError for a link: it may lead into other files."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise InputError(f"{where}: {name} is a link, expected what lies in this file itself")
    return group[name]


class Group:
    """The arrays of a group, by their paths in it; opened anew whenever something is read."""

    def __init__(self, path: Path, group: str) -> None:
        self.path, self.group = path, group
        self.where, self.whole = f"{path}: {group}" if group else str(path), bool(group)
        self.arrays: dict[str, Header] = {}
        self._seen = 0
        with opened(path) as file:
            node = file
            for part in filter(None, group.split("/")):
                node = child(node, part, self.where)
            self.fps = _fps(node) or _fps(file) or _control_rate(file)
            self._walk(node, "", 0)
            stored = sum(self._dataset(file, name).id.get_storage_size() for name in self.arrays)
        self.size = stored if group else path.stat().st_size

    def _walk(self, group: Any, prefix: str, depth: int) -> None:
        import h5py

        for name in group:
            # Groups that hold each other have no end.
            self._seen += 1
            if self._seen > _MOST_ARRAYS:
                raise InputError(f"{self.where}: more than {_MOST_ARRAYS} arrays and groups")
            found = child(group, name, self.where)
            if isinstance(found, h5py.Group) and depth < 8:
                self._walk(found, f"{prefix}{name}/", depth + 1)
            elif isinstance(found, h5py.Dataset) and (header := self._header(found, prefix + name)):
                self.arrays[prefix + name] = header

    def _header(self, dataset: Any, name: str) -> Header | None:
        import h5py

        if dataset.is_virtual or dataset.external:
            raise InputError(f"{self.where}: {name} lies in other files, expected it in this one")
        if dataset.shape is None or not dataset.shape:
            return None
        if h5py.check_vlen_dtype(dataset.dtype) == np.uint8:
            return Header(dataset.shape, np.dtype(np.uint8), encoded=True)
        if dataset.dtype.kind not in "fiub":
            # Of actions it is told that they are no numbers.
            return Header(dataset.shape, dataset.dtype) if name.split("/")[-1] in ROLES["actions"] else None
        # A part of it is unpacked as a whole, whatever is read of it.
        if (part := Header(dataset.chunks or (), dataset.dtype).bytes) > MAX_ARRAY:
            raise InputError(f"{self.where}: {name} lies in parts of {part} bytes, expected at most {MAX_ARRAY}")
        padded = dataset.dtype == np.uint8 and len(dataset.shape) == 2 and len(dataset) > 0
        encoded = padded and dataset[0, :4].tobytes().startswith(_IMAGE_STARTS)
        if encoded and dataset.shape[1] > _MAX_IMAGE:
            raise InputError(
                f"{self.where}: {name} has images of {dataset.shape[1]} bytes, expected at most {_MAX_IMAGE}"
            )
        return Header(dataset.shape, dataset.dtype, encoded)

    def _dataset(self, file: Any, name: str) -> Any:
        node = file
        for part in filter(None, [*self.group.split("/"), *name.split("/")]):
            node = child(node, part, self.where)
        return node

    def blocks(self, name: str, first: int, after: int) -> Blocks:
        """As `Container`."""
        return _GroupBlocks(self, name, first, after)

    def column(self, name: str, first: int, after: int) -> NDArray[Any]:
        """As `Container`."""
        self.arrays[name].check_size(f"{self.where}: {name}")
        with opened(self.path) as file:
            return np.asarray(self._dataset(file, name)[first:after])


class _GroupBlocks(Part):
    def __init__(self, group: Group, name: str, first: int, after: int) -> None:
        super().__init__(group.arrays[name], first, after)
        self.group, self.name = group, name

    def __iter__(self) -> Iterator[NDArray[Any]]:
        with opened(self.group.path) as file:
            dataset = self.group._dataset(file, self.name)
            if self.header.encoded:
                for row in range(self.first, self.after):
                    if (size := _length(dataset, row)) > _MAX_IMAGE:
                        where = f"{self.group.where}: {self.name}"
                        raise InputError(f"{where}: image {row} has {size} bytes, expected at most {_MAX_IMAGE}")
                    yield dataset[row : row + 1]
                return
            step = block_length(self.header.shape, self.header.dtype)
            for start in range(self.first, self.after, step):
                yield dataset[start : min(start + step, self.after)]


def _length(dataset: Any, row: int) -> int:
    """Bytes of a row, of whatever length, before it is read: what refers to it begins with them."""
    if len(dataset.shape) != 1:
        return int(np.prod(dataset.shape[1:], dtype=object))
    inside, part = (row, 0) if dataset.chunks is None else (row % dataset.chunks[0], row // dataset.chunks[0])
    if dataset.chunks is None:
        width, begin = dataset.id.get_storage_size() // len(dataset), dataset.id.get_offset()
        if begin is None:
            return 0  # nothing was written
        with open(dataset.file.filename, "rb") as file:
            file.seek(begin + inside * width)
            return int.from_bytes(file.read(4), "little")
    # Of packed ones it is not known; what a file holds of them is not packed, so that they are no longer than it.
    if dataset.id.get_create_plist().get_nfilters():
        return 0
    _, references = dataset.id.read_direct_chunk((part * dataset.chunks[0],))
    width = len(references) // dataset.chunks[0]
    return int.from_bytes(references[inside * width : inside * width + 4], "little")


class CountedFrames:
    """A file with an array for each frame, frame_i_x, and for each action, frame_i_y, as an episode."""

    def __init__(self, group: Group) -> None:
        self.group, self.where, self.size, self.fps, self.whole = group, group.where, group.size, group.fps, True
        numbers = sorted(int(found[1]) for name in group.arrays if (found := COUNTED.fullmatch(name)))
        self.arrays: dict[str, Header] = {}
        for role, suffix in (("frames", "x"), ("actions", "y")):
            names = [f"frame_{number}_{suffix}" for number in numbers]
            headers = [group.arrays.get(name) for name in names]
            if numbers != list(range(len(numbers))) or any(header != headers[0] for header in headers):
                raise InputError(f"{self.where}: expected frame_0_{suffix}, frame_1_{suffix}, ... of one shape each")
            if headers[0]:
                self.arrays[role] = Header((len(names), *headers[0].shape), headers[0].dtype)

    def blocks(self, name: str, first: int, after: int) -> Blocks:
        """As `Container`."""
        return _CountedBlocks(self, name, first, after)

    def column(self, name: str, first: int, after: int) -> NDArray[Any]:
        """As `Container`."""
        return np.concatenate(list(self.blocks(name, first, after)))


class _CountedBlocks:
    def __init__(self, file: CountedFrames, name: str, first: int, after: int) -> None:
        self.file, self.suffix, self.first, self.after = file, "x" if name == "frames" else "y", first, after
        self.shape: tuple[int, ...] = (after - first, *file.arrays[name].shape[1:])

    def __iter__(self) -> Iterator[NDArray[Any]]:
        group = self.file.group
        with opened(group.path) as file:
            for number in range(self.first, self.after):
                yield group._dataset(file, f"frame_{number}_{self.suffix}")[()][None]


def _fps(node: Any) -> float | None:
    return _rate(node.attrs["fps"]) if "fps" in node.attrs else None


def _control_rate(file: Any) -> float | None:
    """Of robomimic: in the arguments of the environment."""
    said = child(file, "data", file.filename).attrs.get("env_args") if "data" in file else None
    try:
        return _rate(json.loads(said)["env_kwargs"]["control_freq"]) if said else None
    except (ValueError, KeyError, TypeError):
        return None


def _rate(value: Any) -> float | None:
    try:
        rate = float(value)
    except (TypeError, ValueError):
        return None
    return rate if isfinite(rate) and rate > 0 else None
