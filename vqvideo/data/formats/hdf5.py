"""HDF5 files of arrays: of robomimic, D4RL, Dreamer, CS:GO, stable-worldmodel, Minari, or of any names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.files_below import files_below
from vqvideo.data.formats.contained import ContainedReader, Container, Header, Part
from vqvideo.data.formats.pictures import Blocks, block_length
from vqvideo.errors import InputError, MissingExtraError

ENDINGS = frozenset({".h5", ".hdf5", ".hdf", ".he5"})
_MOST_ARRAYS = 100_000
_IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG")
_COUNTED = re.compile(r"frame_(\d+)_x$")


class HDF5(ContainedReader):
    """All HDF5 files below a folder, or one: groups of arrays that are an episode each, or arrays of many episodes."""

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether there are files that end like HDF5."""
        return path.suffix.lower() in ENDINGS if path.is_file() else bool(files_below(path, ENDINGS)[0])

    def files(self) -> list[Path]:
        """The files that are read."""
        if self.path.is_file():
            return [self.path]
        found, listed = files_below(self.path, ENDINGS)
        if not found:
            said = f"no HDF5 files ({listed or 'it is empty'})" if self.path.is_dir() else "no such file or folder"
            raise InputError(f"{self.path}: {said}; they end in {', '.join(sorted(ENDINGS))}")
        return [self.path / name for name in found]

    def containers(self) -> Iterator[tuple[str, Callable[[], Container]]]:
        """As `ContainedReader`."""
        for path in self.files():
            name = "" if path == self.path else path.relative_to(self.path).as_posix()
            try:
                groups = _episode_groups(path)
            except InputError as error:
                yield name, lambda error=error: _raise(error)  # type: ignore[misc]
                continue
            for group in groups:
                inside = "/".join(part for part in (name, group) if part)
                yield inside or path.name, lambda path=path, group=group: _container(path, group)  # type: ignore[misc]


def _raise(error: InputError) -> Container:
    raise error


def _container(path: Path, group: str) -> Container:
    container = Group(path, group)
    return CountedFrames(container) if any(map(_COUNTED.fullmatch, container.arrays)) else container


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
        hint = " (a compression that a package brings: pip install hdf5plugin)" if "filter" in str(error) else ""
        raise InputError(f"{path}: not an HDF5 file that can be read ({error}){hint}") from error


def child(group: Any, name: str, where: str) -> Any:
    """What lies in a group. InputError for a link: it may lead into other files."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise InputError(f"{where}: {name} is a link, expected what lies in this file itself")
    return group[name]


def _episode_groups(path: Path) -> list[str]:
    """The groups that are an episode each; "" for the file itself."""
    with opened(path) as file:
        import h5py

        def groups(group: Any) -> list[str]:
            names = [name for name in group if group.get(name, getclass=True, getlink=True) is h5py.HardLink]
            return [name for name in names if group.get(name, getclass=True) is h5py.Group]

        top = groups(file)
        if "data" in top and (demos := groups(file["data"])):
            return [f"data/{name}" for name in _in_order(demos)]
        episodes = [name for name in top if re.fullmatch(r"[A-Za-z_]*\d+", name)]
        return _in_order(episodes) if episodes else [""]


def _in_order(names: list[str]) -> list[str]:
    """Names by the numbers in them: demo_2 before demo_10."""
    return sorted(names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


class Group:
    """The arrays of a group, by their paths in it; opened anew whenever something is read."""

    def __init__(self, path: Path, group: str) -> None:
        self.path, self.group = path, group
        self.where, self.whole = f"{path}: {group}" if group else str(path), bool(group)
        self.arrays: dict[str, Header] = {}
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
            found = child(group, name, self.where)
            if isinstance(found, h5py.Group) and depth < 8:
                self._walk(found, f"{prefix}{name}/", depth + 1)
            elif isinstance(found, h5py.Dataset) and (header := self._header(found, prefix + name)):
                self.arrays[prefix + name] = header
            if len(self.arrays) > _MOST_ARRAYS:
                raise InputError(f"{self.where}: more than {_MOST_ARRAYS} arrays")

    def _header(self, dataset: Any, name: str) -> Header | None:
        import h5py

        if dataset.is_virtual or dataset.external:
            raise InputError(f"{self.where}: {name} lies in other files, expected it in this one")
        if dataset.shape is None or not dataset.shape:
            return None
        if h5py.check_vlen_dtype(dataset.dtype) == np.uint8:
            return Header(dataset.shape, np.dtype(np.uint8), encoded=True)
        if dataset.dtype.kind not in "fiub":
            return None
        encoded = dataset.dtype == np.uint8 and len(dataset.shape) == 2 and len(dataset) > 0
        start = dataset[0, :4].tobytes() if encoded else b""
        return Header(dataset.shape, dataset.dtype, start.startswith(_IMAGE_STARTS))

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
        step = 16 if self.header.encoded else block_length(self.header.shape, self.header.dtype)
        with opened(self.group.path) as file:
            dataset = self.group._dataset(file, self.name)
            for start in range(self.first, self.after, step):
                yield dataset[start : min(start + step, self.after)]


class CountedFrames:
    """A file with an array for each frame, frame_i_x, and for each action, frame_i_y, as an episode."""

    def __init__(self, group: Group) -> None:
        self.group, self.where, self.size, self.fps, self.whole = group, group.where, group.size, group.fps, True
        numbers = sorted(int(found[1]) for name in group.arrays if (found := _COUNTED.fullmatch(name)))
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
