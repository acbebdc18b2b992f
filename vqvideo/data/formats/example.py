"""Messages tf.train.Example: named lists of bytes, floats or whole numbers, as protocol buffers write them.

Example {1: Features}   Features {1: map of name to Feature}
Feature {1: BytesList or 2: FloatList or 3: Int64List}, each {1: values}, numbers packed or one by one
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqvideo.errors import InputError

_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5
_BYTES, _FLOATS, _INTS = 1, 2, 3
_MOST_NAMES, _MOST_VALUES = 2**16, 2**24
"""Of an example and of one of its lists: more would take much more memory than the message."""
_MOST_PARTS = 2**22
"""Pieces of a list that are written one by one."""


class _Field(NamedTuple):
    number: int
    wire: int
    """How its value is written."""
    value: memoryview
    """The bytes of it, for a varint those of the number itself."""


@dataclass
class Feature:
    """One named list. Nothing of it is copied or decoded until it is asked for."""

    kind: int = 0
    """0 where nothing was written: an empty list of any kind."""
    parts: list[_Field] = field(default_factory=list)

    @property
    def is_bytes(self) -> bool:
        """Whether it holds bytes or text, at least one."""
        return self.kind == _BYTES and bool(self.parts)

    @property
    def is_numbers(self) -> bool:
        """Whether it holds numbers, at least one."""
        return not self.is_bytes and any(len(part.value) for part in self.parts)

    def items(self) -> list[memoryview]:
        """The values of a list of bytes."""
        return [part.value for part in self.parts]

    def numbers(self, where: str) -> NDArray[Any]:
        """The values of a list of numbers (n,), float32 or int64. InputError for bytes, damaged ones or too many."""
        if self.kind == _BYTES:
            raise InputError(f"{where}: bytes or text, expected numbers")
        decode, kind = (_floats, np.float32) if self.kind == _FLOATS else (_ints, np.int64)
        arrays: list[NDArray[Any]] = []
        count = 0
        for part in self.parts:
            arrays.append(decode(part, where))
            count += len(arrays[-1])
            _check_count(count, where)
        return np.concatenate(arrays).astype(kind, copy=False) if arrays else np.zeros(0, kind)


def features_of(message: bytes, where: str) -> dict[str, Feature]:
    """The lists of an example by name, in the order of the names.

    Args:
        message: the bytes of it; the features keep pointing into them.
        where: begins errors.

    Raises:
        InputError: not such a message, or damaged.
    """
    try:
        found = dict(_features(memoryview(message)))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: no tf.train.Example that can be read ({error})") from error
    if not found:
        raise InputError(f"{where}: nothing in it, expected a tf.train.Example")
    return dict(sorted(found.items()))


def _features(message: memoryview) -> Iterator[tuple[str, Feature]]:
    count = 0
    for features in _inside(message, 1):
        for entry in _inside(features, 1):
            count += 1
            if count > _MOST_NAMES:
                raise ValueError(f"more than {_MOST_NAMES} names")
            names = [bytes(name).decode() for name in _inside(entry, 1)]
            yield names[-1] if names else "", _feature(entry)


def _feature(entry: memoryview) -> Feature:
    found = Feature()
    for value in _inside(entry, 2):
        for part in _fields(value):
            if part.number in (_BYTES, _FLOATS, _INTS) and part.wire == _LENGTH:
                # Of several kinds the last counts, as in every oneof.
                found = found if found.kind == part.number else Feature(part.number)
                found.parts += _values(part)
                if len(found.parts) > _MOST_PARTS:
                    raise ValueError(f"a list of more than {_MOST_PARTS} single values")
    return found


def _values(part: _Field) -> Iterator[_Field]:
    for number, value in enumerate(_fields(part.value)):
        if number > _MOST_PARTS:
            raise ValueError(f"a list of more than {_MOST_PARTS} single values")
        if value.number == 1 and (part.number != _BYTES or value.wire == _LENGTH):
            yield value


# ---------------------------------------------------------------- the wire


def _inside(message: memoryview, number: int) -> Iterator[memoryview]:
    """The messages or texts of a field."""
    return (part.value for part in _fields(message) if part.number == number and part.wire == _LENGTH)


def _fields(message: memoryview) -> Iterator[_Field]:
    """All fields of a message in order. ValueError for what is none."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, wire, first = key >> 3, key & 7, place
        if wire == _VARINT:
            _, place = _varint(message, place)
        elif wire == _LENGTH:
            length, first = _varint(message, place)
            place = first + length
        elif wire in (_EIGHT, _FOUR):
            place += 8 if wire == _EIGHT else 4
        else:
            raise ValueError(f"byte {first} of a message of {len(message)}: a field of wire type {wire}")
        if place > len(message):
            raise ValueError(f"a field ends at byte {place} of a message of {len(message)}")
        yield _Field(number, wire, message[first:place])


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number, and the place behind it."""
    number = 0
    for step, byte in enumerate(message[place : place + 10]):
        number |= (byte & 0x7F) << (7 * step)
        if byte < 0x80:
            return number, place + step + 1
    raise ValueError(f"byte {place} of a message of {len(message)}: a number without an end")


def _floats(part: _Field, where: str) -> NDArray[np.float32]:
    if part.wire not in (_LENGTH, _FOUR) or len(part.value) % 4:
        raise InputError(f"{where}: {len(part.value)} bytes of floats, expected four of each")
    _check_count(len(part.value) // 4, where)
    return np.frombuffer(part.value, "<f4")


def _ints(part: _Field, where: str) -> NDArray[np.int64]:
    """Packed varints, all at once: each ends with the byte whose highest bit is not set."""
    written = np.frombuffer(part.value, np.uint8)
    _check_count(int(np.count_nonzero(written < 0x80)), where)
    ends = np.flatnonzero(written < 0x80)
    if part.wire not in (_LENGTH, _VARINT) or (len(written) and (not len(ends) or ends[-1] != len(written) - 1)):
        raise InputError(f"{where}: the last whole number has no end")
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])[: len(ends)]
    lengths = ends + 1 - starts
    if lengths.max(initial=0) > 10:
        raise InputError(f"{where}: a whole number of {lengths.max()} bytes, expected at most 10")
    found = np.zeros(len(ends), np.uint64)
    for step in range(int(lengths.max(initial=0))):
        there = lengths > step
        found[there] |= (written[starts[there] + step] & np.uint8(0x7F)).astype(np.uint64) << np.uint64(7 * step)
    return found.view(np.int64)


def _check_count(count: int, where: str) -> None:
    if count > _MOST_VALUES:
        raise InputError(f"{where}: {count} numbers, expected at most {_MOST_VALUES}")
