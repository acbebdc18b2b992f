"""Data sets of stable-worldmodel: HDF5, or a folder of npz columns with images or a film for each episode."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.files_below import files_below
from vqvideo.data.formats.arrays import Archive
from vqvideo.data.formats.contained import Container, Header
from vqvideo.data.formats.hdf5 import ENDINGS, HDF5
from vqvideo.data.formats.hdf5_group import opened
from vqvideo.data.formats.pictures import Blocks, EncodedPictures
from vqvideo.data.formats.rows import Pictures, Rows
from vqvideo.data.formats.videos import Film
from vqvideo.errors import InputError
from vqvideo.storage.files import read_small

LENGTHS, OFFSETS = "ep_len", "ep_offset"
_IMAGES, _FILM = frozenset({".jpeg", ".jpg", ".png"}), ".mp4"
_EPISODE = re.compile(r"ep_(\d+)(?:_step_(\d+))?")
_ONLY = "arr_0"
"""The name of the one array in each npz."""
_MAX_IMAGE = 2**28


class StableWorldModel(HDF5):
    """One data set, in the layouts `hdf5`, `folder` or `video`.

    A row holds what there was when its picture was taken, but for the action. Its reward and end came with the picture,
    from the step before; its action is the next one, which leads from this picture to that of the next row. The
    collector moves the first action of an episode, which led to its first picture, into the last row, or leaves NaN
    there: from there nothing leads on, and it is left out. So n rows are n frames and n - 1 steps.
    """

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether there are lengths of episodes, or a table of Lance, which is what it writes by default."""
        return (path / f"{LENGTHS}.npz").is_file() or _lance(path) is not None or _is_hdf5(path)

    def containers(self) -> Iterator[tuple[str, Callable[[], Container]]]:
        """As `ContainedReader`."""
        if (self.path / f"{LENGTHS}.npz").is_file():
            yield "", partial(ColumnsFolder, self.path)
            return
        if (table := _lance(self.path)) is not None:
            other = table.with_suffix(".h5").name
            raise InputError(
                f"{table}: a table of Lance, which is not read here. Where stable-worldmodel is installed, write it as "
                f"HDF5, in Python: stable_worldmodel.data.convert({str(table)!r}, {other!r}, dest_format='hdf5'); then "
                "import that"
            )
        yield from super().containers()

    def view(self, container: Container, camera: str, first: int, after: int, where: str) -> Pictures:
        """As `ContainedReader`."""
        if isinstance(container, ColumnsFolder) and container.arrays[camera].encoded:
            found = container.view(camera, first, where)
            if found.facts.frames != after - first and self.options.align != "shortest":
                raise InputError(
                    f"{where}: {found.facts.frames} frames, expected {after - first} ({LENGTHS}). If they are only "
                    "missing at the end: --align shortest"
                )
            return found
        return super().view(container, camera, first, after, where)

    def rows(self, name: str) -> Rows:
        """As `RowReader`."""
        rows = super().rows(name)
        actions = slice(None, -1) if self._leads == "from" else slice(1, None)
        came = [None if column is None else column[1:] for column in (rows.rewards, rows.terminated)]
        return Rows(None if rows.actions is None else rows.actions[actions], *came)

    def _notes(self, acting: int, said: str, missing: list[set[str]], lacks: tuple[str, ...]) -> Iterator[str]:
        yield from super()._notes(acting, said, missing, lacks)
        if len(lacks) < 2:
            yield "the reward and the end in a row came with its frame, and belong to the action before"


def _lance(path: Path) -> Path | None:
    """The first table of Lance."""
    found = [path] if path.suffix.lower() == ".lance" else sorted(path.glob("*.lance"))
    return next((table for table in found if table.is_dir()), None)


def _is_hdf5(path: Path) -> bool:
    files = [path] if path.is_file() else [path / name for name in files_below(path, ENDINGS)[0][:1]]
    try:
        for file in files:
            if file.suffix.lower() in ENDINGS:
                with opened(file) as content:
                    return LENGTHS in content and OFFSETS in content
    except InputError:
        pass  # it is told by the one that reads HDF5
    return False


class ColumnsFolder:
    """A column of all episodes in each npz, and a folder for each camera: ep_<i>_step_<j>.jpeg, or ep_<i>.mp4."""

    fps: float | None = None
    whole = False

    def __init__(self, path: Path) -> None:
        self.path, self.where = path, str(path)
        files, _ = files_below(path, frozenset({".npz", _FILM, *_IMAGES}))
        self.size = sum((path / file).stat().st_size for file in files)
        columns = {file.with_suffix("").as_posix(): Archive(path / file) for file in files if file.suffix == ".npz"}
        self._columns = {name: one for name, one in columns.items() if _ONLY in one.arrays}
        self.arrays = {name: one.arrays[_ONLY] for name, one in self._columns.items()}
        for name in (LENGTHS, OFFSETS):
            if name not in self.arrays or len(self.arrays[name].shape) != 1:
                raise InputError(f"{path}: no {name}.npz with a number for each episode, called {_ONLY}")
        lengths = self.column(LENGTHS, 0, self.arrays[LENGTHS].shape[0])
        self._offsets = self.column(OFFSETS, 0, self.arrays[OFFSETS].shape[0]).tolist()
        self._shown = {
            (file.parent.as_posix(), int(found[1]), found[2] and int(found[2])): path / file
            for file in files
            if file.suffix != ".npz" and file.parent != Path() and (found := _EPISODE.fullmatch(file.stem))
        }
        self._counts = Counter((camera, number) for camera, number, _ in self._shown)
        rows = int(lengths.astype(np.int64).sum())
        cameras = sorted({camera for camera, _ in self._counts})
        self.arrays |= {camera: Header((rows,), np.dtype(np.uint8), encoded=True) for camera in cameras}

    def view(self, camera: str, first: int, where: str) -> Pictures:
        """The frames of the episode that begins with a row. InputError where they are missing."""
        number = self._offsets.index(first)
        if film := self._shown.get((camera, number, None)):
            return Film(film, every_frame=True)
        images: list[Path] = []
        while image := self._shown.get((camera, number, len(images))):
            images.append(image)
        if not images or len(images) < self._counts[camera, number]:
            expected = self.path / camera / f"ep_{number}_step_{len(images)}.jpeg"
            raise InputError(f"{where}: {expected} is missing")
        return EncodedPictures(_Files(images), len(images), where)

    def blocks(self, name: str, first: int, after: int) -> Blocks:
        """As `Container`."""
        return self._columns[name].blocks(_ONLY, first, after)

    def column(self, name: str, first: int, after: int) -> NDArray[Any]:
        """As `Container`."""
        return self._columns[name].column(_ONLY, first, after)


class _Files:
    """What is in files, which are read one by one."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __iter__(self) -> Iterator[bytes]:
        for path in self.paths:
            yield read_small(path, _MAX_IMAGE)
