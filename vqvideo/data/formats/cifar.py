"""CIFAR-10 as its authors store it: pictures of 32x32 beside labels, in the binary version or in that for Python.

A picture is a frame and a label the action that leads to it, as in `mnist`: who presses 3 is shown some cat.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.files_below import files_called
from vqvideo.data.formats import FORMATS
from vqvideo.data.formats.labelled_stills import LabelledStills
from vqvideo.data.formats.pictures import Blocks, Sliced
from vqvideo.data.formats.plain_pickle import plain
from vqvideo.errors import InputError
from vqvideo.storage.files import read_small

if TYPE_CHECKING:
    from vqvideo.data.config import ImportConfig

_BATCH = re.compile(r"^(data_batch_\d+|test_batch)(\.bin)?$")
_TEST = "test_batch"
_PICTURE = (3, 32, 32)
_BYTES = 3 * 32 * 32
_MOST_BYTES = 2**28
"""Of a pickle. Those of the data set have 31 million."""
GET = FORMATS["cifar"].get
"""Nothing is downloaded unless somebody asks for it."""


class CIFAR(LabelledStills):
    """Every batch is a recording. Where there are others, the test batch is held out and no others."""

    def __init__(self, options: ImportConfig) -> None:
        super().__init__(options, _found(options.source), _TEST)

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether there are its files, or it is missed."""
        return bool(files_called(path, _BATCH)) if path.exists() else "cifar" in path.name.lower()

    def blocks(self, path: Path) -> Blocks:
        """As `LabelledStills`."""
        return _Pictures(path)

    def labels(self, path: Path) -> tuple[Path, NDArray[Any]]:
        """As `LabelledStills`."""
        return path, _batch(path)[1]


class _Pictures:
    """The pictures of a batch, which other processes read for themselves."""

    def __init__(self, path: Path) -> None:
        self.path, self.shape = path, _batch(path)[0].shape

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return iter(Sliced(_batch(self.path)[0]))


def _batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures (n, 3, 32, 32) and labels (n,)."""
    found = path.stat()
    return _read(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1)
def _read(path: Path, size: int, changed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The batch that was read last: an import asks for it in each of its jobs."""
    return _of_records(path, size) if path.suffix == ".bin" else _of_pickle(path)


def _of_records(path: Path, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Of the binary version: records of a label and of the pixels of a picture, red ones first."""
    if not size or size % (1 + _BYTES):
        raise InputError(
            f"{path}: {size} bytes, expected records of {1 + _BYTES}: it is truncated, or not of CIFAR-10. {GET}"
        )
    records = np.memmap(path, np.uint8, "r", shape=(size // (1 + _BYTES), 1 + _BYTES))
    return records[:, 1:].reshape(-1, *_PICTURE), records[:, 0].astype(np.int64)


def _of_pickle(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Of the version for Python, read without unpickling."""
    batch = plain(read_small(path, _MOST_BYTES), str(path))
    values: dict[str, Any] = {"data": None, "labels": None} | (batch if isinstance(batch, dict) else {})
    data, labels = values["data"], values["labels"]
    if not _is_batch(data, labels):
        found = list(batch)[:8] if isinstance(batch, dict) else type(batch).__name__
        raise InputError(
            f"{path}: found {found!s:.200}, expected a dict with data, (n, {_BYTES}) bytes, and n labels. {GET}"
        )
    return data.reshape(-1, *_PICTURE), np.array(labels, np.int64)


def _is_batch(data: Any, labels: Any) -> bool:
    whole = isinstance(labels, list) and all(type(label) is int and abs(label) < 2**31 for label in labels)
    shaped = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2 and data.shape[1] == _BYTES
    return whole and shaped and len(data) == len(labels) > 0


def _found(path: Path) -> dict[str, Path]:
    """The batches by name, those for training first."""
    files = files_called(path, _BATCH)
    if not files:
        raise InputError(f"{path}: no data_batch_1 or test_batch in it or below, with .bin or without. {GET}")
    kinds = sorted({(str(file.parent), file.suffix) for file in files})
    if len(kinds) > 1:
        listed = ", ".join(f"{folder} ({ending or 'no ending'})" for folder, ending in kinds[:8])
        raise InputError(f"{path} holds {len(kinds)} data sets, expected one: name one of {listed}")
    return {file.stem: file for file in sorted(files, key=lambda file: (file.stem == _TEST, file.name))}
