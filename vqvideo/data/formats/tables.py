"""Small files of rows: csv, jsonl, npy, npz. Numbers only, and nothing that could run."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from vqvideo.errors import InputError
from vqvideo.storage.files import parse_json

Table = dict[str, NDArray[Any]]
MAX_TEXT = 2**28
"""Bytes of a csv or jsonl file: ten million rows of a few numbers."""
MAX_ARRAY = 2**32
"""Bytes of an array that is unpacked into memory."""
_MAX_HEADER = 2**16


def read_table(path: Path) -> Table:
    """The columns of a file, (n,) or (n, ...) each, by name; an array without a name is called "action".

    Raises:
        InputError: not a file of that kind, damaged, too large, or with other things than numbers; names file and row.
    """
    try:
        return READERS[path.suffix.lower()](path)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError, NotImplementedError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a {path.suffix} file that can be read ({error})") from error


# ---------------------------------------------------------------- text


def _csv(path: Path) -> Table:
    _check_size(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, strict=True)
        try:
            names = [name.strip() for name in next(lines, [])]
            rows = list(lines)
        except csv.Error as error:
            raise InputError(f"{path}, line {lines.line_num}: {error}") from error
    if not names or len(set(names)) < len(names) or all(_is_number(name) for name in names):
        raise InputError(f"{path}: the first line is {names!r:.100}, expected the names of the columns, each once")
    for number, row in enumerate(rows, 2):
        if len(row) != len(names):
            raise InputError(f"{path}, line {number}: {len(row)} cells, expected {len(names)}")
    columns = {name: [row[i].strip() for row in rows] for i, name in enumerate(names)}
    return _numbers({name: cells for name, cells in columns.items() if not _is_text(cells)}, path, 2)


def _is_text(cells: list[str]) -> bool:
    """Whether a column holds words: it is left out, and an action that names it is told that there is none."""
    return any(cell and not _is_number(cell) and cell.lower() not in ("true", "false") for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _jsonl(path: Path) -> Table:
    columns: dict[str, list[Any]] = {}
    count = 0
    for count, line in enumerate(json_lines(path), 1):
        for name, value in flat_items(line):
            column = columns.setdefault(name, [None] * (count - 1))
            column += [None] * (count - 1 - len(column)) + [value]
    whole = {name: cells + [None] * (count - len(cells)) for name, cells in columns.items()}
    return _numbers(
        {name: cells for name, cells in whole.items() if not any(isinstance(cell, str) for cell in cells)}, path, 1
    )


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a jsonl file, line by line. InputError for something else; names the line."""
    _check_size(path)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                value = parse_json(line, f"{path}, line {number}")
                if not isinstance(value, dict):
                    raise InputError(f"{path}, line {number}: a {type(value).__name__}, expected an object {{...}}")
                yield value


def flat_items(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers inside of nested objects and lists, by their path: {"a": {"b": [1, 2]}} gives a/b/0 and a/b/1."""
    if isinstance(value, Mapping):
        pairs = ((str(key), child) for key, child in value.items())
    elif isinstance(value, list):
        pairs = ((str(key), child) for key, child in enumerate(value))
    else:
        yield name, value
        return
    for key, child in pairs:
        yield from flat_items(child, f"{name}/{key}" if name else key)


def _numbers(columns: Mapping[str, list[Any]], path: Path, first: int) -> Table:
    """Columns of cells as arrays. The last row may lack its cells: no action leads from the last frame."""
    filled = {name: cells for name, cells in columns.items() if any(not _is_empty(cell) for cell in cells)}
    rows = max(map(len, filled.values()), default=0)
    rows -= any(_is_empty(cells[-1]) for cells in filled.values())
    for name, cells in filled.items():
        for row, cell in enumerate(cells[:rows], first):
            if _is_empty(cell):
                raise InputError(f"{path}, line {row}: no {name}, expected a number in each row but the last")
    return {name: _array(cells[:rows]) for name, cells in filled.items()}


def _is_empty(cell: Any) -> bool:
    return cell is None or cell == ""


def _array(cells: list[Any]) -> NDArray[Any]:
    if all(isinstance(cell, bool) or str(cell).lower() in ("true", "false") for cell in cells):
        return np.array([str(cell).lower() == "true" for cell in cells])
    values = np.array([float(cell) for cell in cells])
    whole = np.abs(values).max(initial=0) < 2**53 and (values == np.rint(values)).all()
    written = all(not isinstance(cell, float) and "." not in str(cell) for cell in cells)
    return values.astype(np.int64) if whole and written else values


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if size > MAX_TEXT:
        raise InputError(f"{path}: {size} bytes, expected at most {MAX_TEXT}: save it as npz or in parts")


# ---------------------------------------------------------------- numpy


def _npy(path: Path) -> Table:
    array = npy.open_memmap(path, mode="r", max_header_size=_MAX_HEADER)
    return fields_of(array, str(path))


def _npz(path: Path) -> Table:
    with zipfile.ZipFile(path) as archive:
        kinds = {name: header_of(archive, name, path)[1].kind for name in members(archive)}
        # Words and objects are of no use here, and never unpickled.
        return {name: _member(archive, name, path) for name, kind in kinds.items() if kind in "fiub"}


def members(archive: zipfile.ZipFile) -> list[str]:
    """The names of the arrays of an npz file."""
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    shape, dtype = header_of(archive, name, path)
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    held = archive.getinfo(f"{name}.npy").file_size
    if size > held or size > MAX_ARRAY:
        raise InputError(
            f"{path}: {name} says {size} bytes of {dtype} {shape}, expected at most {min(held, MAX_ARRAY)}"
        )
    with archive.open(f"{name}.npy") as file:
        return npy.read_array(file, allow_pickle=False, max_header_size=_MAX_HEADER)


def header_of(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array of an npz file, of which only the beginning is unpacked."""
    with archive.open(f"{name}.npy") as file:
        major, _ = npy.read_magic(file)
        if major not in (1, 2):
            raise InputError(f"{path}: {name} is of npy version {major}, expected 1 or 2")
        read = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
        shape, _, dtype = read(file, max_header_size=_MAX_HEADER)
    return shape, dtype


def fields_of(array: NDArray[Any], where: str) -> Table:
    """An array without a name as a table: of records each field, else "action"."""
    if array.dtype.names:
        return {name: array[name] for name in array.dtype.names}
    if not array.ndim:
        raise InputError(f"{where}: a single number, expected a row per frame")
    return {"action": array}


READERS: dict[str, Callable[[Path], Table]] = {".csv": _csv, ".jsonl": _jsonl, ".npz": _npz, ".npy": _npy}
"""By the ending of a file."""
