"""Episodes of Minari in Arrow: a folder with files of record batches each, of which nothing is copied before it is
needed. Rows of actions, rewards and ends are padded by one, so that there are as many of them as observations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from struct import error as StructError
from struct import unpack_from
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.formats.contained import Header, Part
from vqvideo.data.formats.pictures import Blocks, block_length
from vqvideo.errors import InputError, MissingExtraError

_BEGINNING = b"ARROW1\0\0"
_MAX_BATCHES = 100_000
_IMAGES = 16
"""Encoded images that are read together."""


class ArrowEpisode:
    """The columns of an episode, those inside of others by their paths.

    Args:
        folder: of the episode.
        shapes: of observations that are arrays, by column: they are stored flat.
    """

    fps: float | None = None
    whole = True

    def __init__(self, folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.where, self.folder = str(folder), folder
        self._files = sorted(folder.glob("*.arrow"))
        if not self._files:
            raise InputError(
                f"{folder}: no .arrow files in it, expected what Minari writes with data_format 'arrow' or 'hdf5'"
            )
        self.size = sum(file.stat().st_size for file in self._files)
        rows, columns = 0, dict[str, Header]()
        for batch in self._batches():
            columns = columns or {
                name: one for name, column in _leaves(batch) if (one := _header(column.type, shapes.get(name)))
            }
            rows += len(batch)
        self.arrays = {
            name: one._replace(shape=(rows if name.startswith("observations") else max(0, rows - 1), *one.shape))
            for name, one in columns.items()
        }

    def _batches(self) -> Iterator[Any]:
        """Mapped, so that they take no memory, and opened anew whenever something is read."""
        for file in self._files:
            yield from _record_batches(file)

    def blocks(self, name: str, first: int, after: int) -> Blocks:
        """As `Container`."""
        return _ColumnBlocks(self, name, first, after)

    def column(self, name: str, first: int, after: int) -> NDArray[Any]:
        """As `Container`."""
        header = self.arrays[name]
        header.check_size(f"{self.where}: {name}")
        return np.concatenate([*self.blocks(name, first, after), np.zeros((0, *header.shape[1:]), header.dtype)])

    def parts(self, name: str, first: int, after: int) -> Iterator[Any]:
        """Rows of a column as it is stored, by batches."""
        begin = 0
        for batch in self._batches():
            start, stop = max(first, begin) - begin, min(after, begin + len(batch)) - begin
            if start < stop:
                column = dict(_leaves(batch)).get(name)
                if column is None:
                    raise InputError(f"{self.where}: {name} is not in all of its batches")
                yield column.slice(start, stop - start)
            begin += len(batch)


class _ColumnBlocks(Part):
    def __init__(self, episode: ArrowEpisode, name: str, first: int, after: int) -> None:
        super().__init__(episode.arrays[name], first, after)
        self.episode, self.name = episode, name

    def __iter__(self) -> Iterator[NDArray[Any]]:
        step = _IMAGES if self.header.encoded else block_length(self.header.shape, self.header.dtype)
        for part in self.episode.parts(self.name, self.first, self.after):
            for start in range(0, len(part), step):
                with _readable(self.episode.folder):
                    yield self._rows(part.slice(start, step))

    def _rows(self, column: Any) -> NDArray[Any]:
        if column.null_count:
            raise InputError(f"{self.episode.where}: {self.name} lacks rows, expected one for each step")
        if self.header.encoded:
            rows = np.empty(len(column), object)
            rows[:] = [np.frombuffer(image.as_buffer(), np.uint8) for image in column]
            return rows
        values = column.flatten() if hasattr(column, "flatten") else column
        return values.to_numpy(zero_copy_only=False).reshape(len(column), *self.header.shape[1:])


def _header(kind: Any, shape: tuple[int, ...] | None) -> Header | None:
    """Of a column without its rows; None for what is neither numbers nor images."""
    from pyarrow import types

    if types.is_binary(kind) or types.is_large_binary(kind):
        return Header((), np.dtype(np.uint8), encoded=True)
    flat: tuple[int, ...] = ()
    if types.is_fixed_size_list(kind):
        flat, kind = (kind.list_size,), kind.value_type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        return None
    fits = shape is not None and flat == (int(np.prod(shape, dtype=object)),)
    return Header(shape if shape is not None and fits else flat, np.dtype(kind.to_pandas_dtype()))


def _leaves(batch: Any) -> Iterator[tuple[str, Any]]:
    """The columns of a batch that hold no others, by their paths."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        yield from _inside(name, column)


def _inside(name: str, column: Any) -> Iterator[tuple[str, Any]]:
    from pyarrow import types

    if not types.is_struct(column.type):
        yield name, column
        return
    for number, field in enumerate(column.type):
        yield from _inside(f"{name}/{field.name}", column.field(number))


# ---------------------------------------------------------------- files


def _record_batches(path: Path) -> Iterator[Any]:
    """The record batches of a file, checked. InputError for packed ones, which are unpacked before they can be."""
    with _readable(path):
        import pyarrow
        from pyarrow import ipc

        with pyarrow.memory_map(str(path)) as file:
            if file.read(len(_BEGINNING)) != _BEGINNING:
                raise InputError(f"{path}: not a file of Arrow")
            messages = iter(ipc.MessageReader.open_stream(file))
            schema = ipc.read_schema(next(messages))
            for message in islice(messages, _MAX_BATCHES):
                if message.type != "record batch" or _compressed(message.metadata.to_pybytes()):
                    raise InputError(f"{path}: a compressed or {message.type} part, expected plain record batches")
                batch = ipc.read_record_batch(message, schema)
                # Else numbers in a damaged file would lead to other places of the memory.
                batch.validate(full=True)
                yield batch


def _compressed(message: bytes) -> bool:
    """Whether a record batch is: a table of FlatBuffers, whose field 3 says how, inside of the message's field 2."""
    header = _field(message, unpack_from("<I", message)[0], 2)
    return header > 0 and _field(message, header + unpack_from("<I", message, header)[0], 3) > 0


def _field(buffer: bytes, table: int, number: int) -> int:
    """Where a field of a table is; 0 where it is left out."""
    vtable = table - unpack_from("<i", buffer, table)[0]
    entry = 4 + 2 * number
    offset = unpack_from("<H", buffer, vtable + entry)[0] if entry < unpack_from("<H", buffer, vtable)[0] else 0
    return table + offset if offset else 0


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError(error, "formats") from error
    try:
        yield
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, StructError, StopIteration, TypeError) as error:
        raise InputError(f"{path}: no data of Arrow that can be read ({error})") from error
