"""Parquet files of rows: columns of numbers as arrays, and encoded images as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.formats.tables import MAX_ARRAY, Table
from vqvideo.errors import InputError, MissingExtraError

_BATCH = 16
"""Rows with images that are in memory at a time."""
_WIDEST = 8
"""Bytes of a number."""


class ParquetRows:
    """A file of rows, opened anew whenever something is read.

    Args:
        path: the file.

    Raises:
        InputError: not a Parquet file that can be read; from all methods.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as file:
            self.count = int(file.metadata.num_rows)
            self.names = list(file.schema_arrow.names)
            """Of the columns."""

    def table(self, names: Sequence[str]) -> Table:
        """Columns of numbers by name, (n,) or, of lists of the same length, (n, ...)."""
        self._check_names(names)
        with self._opened() as file:
            held = sum(
                part.num_values
                for group in map(file.metadata.row_group, range(file.metadata.num_row_groups))
                for part in map(group.column, range(group.num_columns))
                if part.path_in_schema.split(".")[0] in {name.split(".")[0] for name in names}
            )
            if held * _WIDEST > MAX_ARRAY:
                raise InputError(f"{self.path}: {held} numbers, expected at most {MAX_ARRAY // _WIDEST} in a file")
            columns = file.read(columns=list(names))
            return {name: self._numbers(columns[name].combine_chunks(), name) for name in names}

    def records(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """All rows of some columns."""
        self._check_names(names)
        with self._opened() as file:
            return file.read(columns=list(names)).to_pylist()

    def images(self, name: str, first: int, after: int) -> Iterator[bytes]:
        """The encoded images of a column, from row `first` up to the one before `after`."""
        self._check_names([name])
        with self._opened() as file:
            groups, skipped = self._groups(file.metadata, first, after)
            row = skipped
            for batch in file.iter_batches(_BATCH, row_groups=groups, columns=[name]):
                for cell in batch.column(name):
                    if first <= row < after:
                        yield self._image(cell, name, row)
                    row += 1

    def _groups(self, metadata: Any, first: int, after: int) -> tuple[list[int], int]:
        """The groups of rows in which some are, and the number of the first row in them."""
        starts = np.cumsum([0, *(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))])
        groups = [n for n in range(metadata.num_row_groups) if starts[n] < after and starts[n + 1] > first]
        for number in groups:
            size = metadata.row_group(number).total_byte_size
            if size > MAX_ARRAY:
                raise InputError(
                    f"{self.path}: a group of rows of {size} bytes, expected at most {MAX_ARRAY}: save it in smaller "
                    "groups"
                )
        return groups, int(starts[groups[0]]) if groups else first

    def _image(self, cell: Any, name: str, row: int) -> bytes:
        value = cell.as_py()
        image = value.get("bytes") if isinstance(value, Mapping) else value
        if not isinstance(image, bytes):
            raise InputError(
                f"{self.path}, row {row}: {name} is {value!r:.100}, expected the bytes of an image in the file itself"
            )
        return image

    def _numbers(self, column: Any, name: str) -> NDArray[Any]:
        from pyarrow import compute, types

        shape = [len(column)]
        while types.is_list(column.type) or types.is_large_list(column.type) or types.is_fixed_size_list(column.type):
            lengths = compute.unique(compute.list_value_length(column)).to_pylist()
            if len(lengths) > 1:
                raise InputError(f"{self.path}: rows of {name} have {lengths[:5]} numbers, expected as many in each")
            shape.append(lengths[0] if lengths else 0)
            column = column.flatten()
        if column.null_count:
            raise InputError(f"{self.path}: {column.null_count} cells of {name} are empty, expected numbers")
        if not (types.is_integer(column.type) or types.is_floating(column.type) or types.is_boolean(column.type)):
            raise InputError(f"{self.path}: {name} is {column.type}, expected numbers")
        return column.to_numpy(zero_copy_only=False).reshape(shape)

    def _check_names(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.names:
                raise InputError(f"{self.path}: no column {name}, found {', '.join(self.names[:20])}")

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise MissingExtraError(error, "formats") from error
        try:
            # Not mapped, and read as it is needed: a file may hold hours of images.
            with parquet.ParquetFile(self.path, pre_buffer=False) as file:
                yield file
        except InputError:
            raise
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"{self.path}: not a Parquet file that can be read ({error!s:.200})") from error
