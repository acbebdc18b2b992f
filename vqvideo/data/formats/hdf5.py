"""HDF5 files of arrays: of robomimic, D4RL, Dreamer, CS:GO, stable-worldmodel, Minari, or of any names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vqvideo.data.files_below import files_below
from vqvideo.data.formats.contained import LEFT_OUT, ContainedReader, Container
from vqvideo.data.formats.hdf5_group import COUNTED, CountedFrames, Group, child, opened
from vqvideo.errors import InputError

ENDINGS = frozenset({".h5", ".hdf5", ".hdf", ".he5"})
_NUMBERED = re.compile(r"[A-Za-z_]*\d+")


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
    return CountedFrames(container) if any(map(COUNTED.fullmatch, container.arrays)) else container


def _episode_groups(path: Path) -> list[str]:
    """The groups that are an episode each; "" for the file itself."""
    with opened(path) as file:
        return _in_order(_episodes_in(file, "", str(path)))


def _episodes_in(group: Any, at: str, where: str) -> list[str]:
    """Of what lies in a group: the groups that are numbered, with any that have frames of their own beside them; what
    is in the one called data, or in the only one; or several with frames, where there are no arrays beside them. Else
    it is an episode itself.
    """
    import h5py

    links = {name for name in group if not isinstance(group.get(name, getlink=True), h5py.HardLink)}
    # What a link leads to is not looked at: one among episodes is refused when it is opened.
    groups = [name for name in group if name in links or group.get(name, getclass=True) is h5py.Group]
    inside, alone = f"{at}/" if at else "", len(groups) == len(group)
    shown = [name for name in groups if name not in links and not LEFT_OUT.search(name)]
    holding = [name for name in shown if group[name].visititems(_may_be_frames)]
    if numbered := [name for name in groups if _NUMBERED.fullmatch(name)]:
        return [inside + name for name in sorted({*numbered, *holding})]
    for name in groups:
        if name == "data" or (alone and len(groups) == 1):
            found = _episodes_in(child(group, name, where), inside + name, where)
            if alone or found != [inside + name]:
                return found
    several = [inside + name for name in {*holding, *links}] if alone else []
    return several if len(several) > 1 else [at]


def _may_be_frames(name: str, found: Any) -> bool | None:
    """True or None, by which a visit goes on."""
    import h5py

    shape = getattr(found, "shape", None) or ()
    return len(shape) >= 3 or (len(shape) > 0 and h5py.check_vlen_dtype(found.dtype) == np.uint8) or None


def _in_order(names: list[str]) -> list[str]:
    """Names by the numbers in them: demo_2 before demo_10."""
    return sorted(names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])
