"""Safetensors files read piece by piece: whether they parse, and whether their numbers are numbers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vqvideo.errors import InputError
from vqvideo.storage import files

MAX_HEADER = 2**24
"""Bytes; the header of a model with ten thousand tensors has a tenth of that."""
_PART = 2**22
"""Elements that are looked at together."""
_MOST_NAMES = 4

_EXPONENTS: dict[str, tuple[type[np.unsignedinteger], int]] = {
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
    "F32": (np.uint32, 0x7F800000),
    "F64": (np.uint64, 0x7FF0000000000000),
}
"""Where the exponent stands; all its bits are set in NaN and in the infinities, and in nothing else."""
_TYPES: dict[str, np.dtype] = {
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
    "F32": np.dtype(np.float32),
    "BOOL": np.dtype(np.bool_),
}


class Layout(NamedTuple):
    """Where a tensor stands in its file."""

    dtype: str
    """As safetensors calls it: F32, I64, BOOL, ..."""
    shape: tuple[int, ...]
    start: int
    """Its first byte in the file."""
    stop: int


def layouts(path: Path) -> dict[str, Layout]:
    """The tensors of a safetensors file by name, without reading them.

    Raises:
        InputError: it is none, or its header does not fit its size.
    """
    files.check_regular(path)
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER:
            raise InputError(f"{path}: a header of {size} bytes, expected at most {MAX_HEADER}; not a file of ours")
        header = file.read(size)
    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError, struct.error) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
    found = files.parse_json(header, str(path))
    return {name: _layout(entry, 8 + size) for name, entry in found.items() if name != "__metadata__"}


def _layout(entry: dict, first: int) -> Layout:
    start, stop = entry["data_offsets"]
    return Layout(entry["dtype"], tuple(entry["shape"]), first + start, first + stop)


def parts(path: Path, layout: Layout, dtype: np.dtype | type[np.unsignedinteger]) -> Iterator[NDArray]:
    """The elements of a tensor, a few at a time, as flat arrays."""
    width = np.dtype(dtype).itemsize
    with open(path, "rb") as file:
        file.seek(layout.start)
        left = layout.stop - layout.start
        while left:
            data = file.read(min(left, _PART * width))
            if not data:
                raise InputError(f"{path}: became shorter while it was read")
            left -= len(data)
            yield np.frombuffer(data, dtype)


def tensor_values(path: Path, layout: Layout) -> Iterator[NDArray]:
    """The values of a tensor of a type that caches of codes have."""
    return parts(path, layout, _TYPES[layout.dtype])


def not_finite(path: Path, tensors: dict[str, Layout]) -> list[str]:
    """Names of the tensors that hold NaN or an infinity."""
    return [name for name, layout in tensors.items() if layout.dtype in _EXPONENTS and _has_odd(path, layout)]


def _has_odd(path: Path, layout: Layout) -> bool:
    dtype, exponent = _EXPONENTS[layout.dtype]
    return any(bool((bits & dtype(exponent) == exponent).any()) for bits in parts(path, layout, dtype))


def first_names(names: list[str]) -> str:
    """The first of many names."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(sorted(names)[:_MOST_NAMES]) + more


def outline(tensors: dict[str, Layout]) -> dict[str, Tensor]:
    """Tensors of the same names and shapes that take no memory."""
    return {name: torch.empty(layout.shape, device="meta") for name, layout in tensors.items()}


def load_tensors(path: Path, names: list[str]) -> dict[str, Tensor]:
    """Some tensors of a file, with floating-point numbers as models hold them."""
    with safe_open(path, framework="pt") as file:
        found = {name: file.get_tensor(name) for name in names}
    return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}
