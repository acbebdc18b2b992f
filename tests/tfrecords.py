"""Small writers of tf.train.Example and TFRecord files, for tests of what reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vqvideo.data.formats.tfrecord import masked


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values: Sequence[Any] | np.ndarray) -> bytes:
    """A list of bytes, of floats or of whole numbers, the numbers packed."""
    array = np.asarray(values) if not isinstance(values[0], bytes) else None
    if array is None:
        return field(1, b"".join(field(1, value) for value in values))
    if array.dtype.kind == "f":
        return field(2, field(1, array.astype("<f4").tobytes()))
    return field(3, field(1, b"".join(varint(int(value)) for value in array.reshape(-1))))


def example(lists: dict[str, Any]) -> bytes:
    """The message of lists by name."""
    entries = [field(1, field(1, name.encode()) + field(2, feature(values))) for name, values in lists.items()]
    return field(1, b"".join(entries))


def framed(record: bytes) -> bytes:
    """A record as it lies in a file."""
    length = struct.pack("<Q", len(record))
    return length + struct.pack("<I", masked(length)) + record + struct.pack("<I", masked(record))


def write_records(path: Path, records: Iterable[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(framed, records)))
    return path


def png(frame: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return file.getvalue()
