"""Recordings that are arrays beside each other in some container: a file, a folder, a group of HDF5. Which array is
what, and where one episode ends and the next begins, is found here; containers only give arrays by name.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.formats.columns import ROLES, chosen, rows_of, usual
from vqvideo.data.formats.pictures import (
    ArrayPictures,
    Blocks,
    EncodedPictures,
    chosen_cameras,
    side_by_side,
)
from vqvideo.data.formats.rows import Pictures, RowReader, Rows
from vqvideo.data.formats.tables import MAX_ARRAY
from vqvideo.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from vqvideo.data.config import ImportConfig

_FIRST = "is_first"
LEFT_OUT = re.compile(r"(^|/)(next_|infos?/|final_)")
"""Pictures that are shown a second time or explain others."""


class Header(NamedTuple):
    """What is known of an array before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    encoded: bool = False
    """Whether each row is an encoded image."""

    @property
    def pictures(self) -> bool:
        """Whether it looks like frames with channels."""
        channels = len(self.shape) == 4 and {self.shape[1], self.shape[3]} & {1, 3, 4}
        return self.encoded or bool(channels and min(self.shape[1:]) > 0)

    @property
    def bytes(self) -> int:
        """Of all of it in memory."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    def check_size(self, where: str) -> None:
        """InputError for an array that is too large to be held in memory as a whole."""
        if self.bytes > MAX_ARRAY:
            raise InputError(f"{where} has {self.bytes} bytes, expected at most {MAX_ARRAY}")


class Part:
    """Some rows of an array in a container, the `Blocks` of a subclass.

    Args:
        header: of the whole array.
        first: of the rows.
        after: the row after the last one, or any beyond the end.
    """

    def __init__(self, header: Header, first: int, after: int) -> None:
        self.header, self.first, self.after = header, first, min(after, header.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of these rows together."""
        return (max(0, self.after - self.first), *self.header.shape[1:])


class Container(Protocol):
    """Arrays by name."""

    where: str
    """How errors call it."""
    arrays: dict[str, Header]
    size: int
    """Bytes on the disk."""
    fps: float | None
    whole: bool
    """Whether it is surely one episode."""

    def blocks(self, name: str, first: int, after: int) -> Blocks:
        """Rows of an array in blocks."""
        ...

    def column(self, name: str, first: int, after: int) -> NDArray[Any]:
        """Rows of an array."""
        ...


class _Place(NamedTuple):
    container: Container
    first: int
    after: int


class ContainedReader(RowReader):
    """Every container of a format, cut into its episodes."""

    def __init__(self, options: ImportConfig) -> None:
        super().__init__(options)
        self._places: dict[str, _Place] = {}
        self._broken: dict[str, InputError] = {}
        for name, make in self.containers():
            self._add(name, make)
        if self._broken and not self._places:
            error, *others = self._broken.values()
            raise InputError(f"{error}\n({len(others)} more cannot be read either)" if others else str(error))
        self.names = [*self._places, *self._broken]
        if any(_FIRST in place.container.arrays for place in self._places.values()):
            self.leads = "to"

    @abstractmethod
    def containers(self) -> Iterator[tuple[str, Callable[[], Container]]]:
        """What each container is called, and how it is looked into."""

    def _add(self, name: str, make: Callable[[], Container]) -> None:
        try:
            container = make()
            frames = container.arrays[self._cameras(container)[0]]
            bounds = _bounds(container, frames.shape[0])
        except MissingExtraError:
            raise
        except InputError as error:
            # Told when it is opened, so that it can be skipped.
            self._broken[name or self.path.name] = error
            return
        for first, after in bounds:
            rows = "" if len(bounds) == 1 else f"{'/' if name else ''}rows {first} to {after - 1}"
            self._places[f"{name}{rows}" or self.path.name] = _Place(container, first, after)

    def size_of(self, name: str) -> int:
        """Bytes of the container."""
        return self._places[name].container.size if name in self._places else 0

    def pictures(self, name: str) -> Pictures:
        """As `RowReader`."""
        container, first, after = self._place(name)
        where = self.where(name)
        cameras = self._cameras(container)
        return side_by_side([self.view(container, one, first, after, f"{where}: {one}") for one in cameras], where)

    def view(self, container: Container, camera: str, first: int, after: int, where: str) -> Pictures:
        """What a camera saw; `where` begins errors."""
        blocks, fps = container.blocks(camera, first, after), self.fps(container)
        if container.arrays[camera].encoded:
            return EncodedPictures(_Images(blocks), blocks.shape[0], where, fps)
        return ArrayPictures(blocks, where, fps)

    def rows(self, name: str) -> Rows:
        """As `RowReader`."""
        container, first, after = self._place(name)
        asked = self.asked | {"frames": None}
        pictures = {name for name, header in container.arrays.items() if header.pictures}
        usable = [name for name in container.arrays if name not in pictures]
        roles = chosen(usable, asked, container.where)
        table = {column: container.column(column, first, after) for columns in roles.values() for column in columns}
        return rows_of(table, asked, container.where)

    def fps(self, container: Container) -> float | None:
        """How fast a container is."""
        return container.fps

    @property
    def asked(self) -> dict[str, Any]:
        """The columns of roles beside the frames, where it is not left to their names."""
        return {role: name for role, name in self.options.columns.items() if role != "frames"}

    def where(self, name: str) -> str:
        """As `RowReader`."""
        return str(self.path) if name == self.path.name else super().where(name)

    def _notes(self, acting: int, said: str, missing: list[set[str]], lacks: tuple[str, ...]) -> Iterator[str]:
        yield from super()._notes(acting, said, missing, lacks)
        if missing and not acting and "actions" not in self.options.columns:
            arrays = next(iter(self._places.values())).container.arrays
            used = {name for role in ROLES if role != "frames" for name in usual(role, list(arrays))}
            others = [name for name, one in arrays.items() if not one.pictures and name not in used]
            if others:
                yield f"no array is called action, but there are {', '.join(others[:12])}: --columns actions=NAME"

    def _place(self, name: str) -> _Place:
        if name in self._broken:
            raise self._broken[name]
        return self._places[name]

    def _cameras(self, container: Container) -> list[str]:
        arrays = container.arrays
        if "frames" in self.options.columns:
            return chosen(arrays, self.options.columns, container.where).get("frames", []) or _none(container)
        # Four dimensions are meant to be pictures, even if they turn out to be none.
        found = [n for n in ROLES["frames"] if n in arrays and (arrays[n].pictures or len(arrays[n].shape) == 4)][:1]
        found = found or [name for name, one in arrays.items() if one.pictures and not LEFT_OUT.search(name)]
        return chosen_cameras(found, self.options.cameras, container.where) if found else _none(container)


class _Images:
    """The encoded images of an array of bytes, padded or of any length."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks

    def __iter__(self) -> Iterator[bytes]:
        for block in self.blocks:
            yield from (np.asarray(row, np.uint8).tobytes() for row in block)


def _none(container: Container) -> list[str]:
    listed = ", ".join(f"{name} {one.dtype} {one.shape}" for name, one in list(container.arrays.items())[:12])
    raise InputError(
        f"{container.where}: no pictures in it, found {listed or 'no arrays of numbers'}; expected an array "
        "(n, h, w, 3): --columns frames=NAME"
    )


# ---------------------------------------------------------------- where episodes end


def _bounds(container: Container, frames: int) -> list[tuple[int, int]]:
    """First frame, and the one after the last, of each episode."""
    arrays = container.arrays
    if container.whole:
        return [(0, frames)]
    if "ep_len" in arrays and "ep_offset" in arrays:
        return _said(container, frames)
    if _FIRST in arrays:
        starts = np.flatnonzero(_flags(container, _FIRST))
    else:
        ended = [name for name in (*ROLES["ends"], "timeouts", "truncations", "is_last") if name in arrays]
        ends = [np.flatnonzero(_flags(container, name)) for name in ended]
        starts = np.unique(np.concatenate([*ends, np.zeros(0, np.int64)]) + 1)
        # With a frame more than rows, the last frame is what the last row leads to, and begins nothing.
        frames_of_rows = [container.arrays[name].shape[0] for name in ended]
        starts = starts[starts < min([frames, *frames_of_rows])]
    inside = [int(start) for start in starts if 0 < start < frames]
    return list(pairwise([0, *inside, frames]))


def _flags(container: Container, name: str) -> NDArray[Any]:
    column = container.column(name, 0, container.arrays[name].shape[0])
    return column.reshape(len(column), -1)[:, 0] if len(column) else column


def _said(container: Container, frames: int) -> list[tuple[int, int]]:
    lengths, offsets = (_flags(container, name).astype(np.int64) for name in ("ep_len", "ep_offset"))
    if len(lengths) != len(offsets):
        raise InputError(f"{container.where}: {len(lengths)} ep_len and {len(offsets)} ep_offset, expected as many")
    for number, (length, offset) in enumerate(zip(lengths.tolist(), offsets.tolist(), strict=True)):
        if length < 1 or offset < 0 or offset + length > frames:
            raise InputError(
                f"{container.where}: episode {number} has rows {offset} to {offset + length - 1} (ep_offset, ep_len), "
                f"expected some of the {frames} that are there"
            )
    return [(offset, offset + length) for length, offset in zip(lengths.tolist(), offsets.tolist(), strict=True)]
