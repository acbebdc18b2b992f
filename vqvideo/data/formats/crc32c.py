"""CRC-32C (Castagnoli), as TFRecord files carry it, at the speed of NumPy."""

from __future__ import annotations

from math import isqrt

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = np.uint32(0x82F63B78)
_ALL = 0xFFFFFFFF
_BLOCK = 2**24
"""Bytes that are laid out in memory at a time."""
_SHORT = 64
"""Bytes below which laying them out takes longer than going through them."""


def crc32c(data: bytes | memoryview) -> int:
    """The checksum of some bytes."""
    view, state = memoryview(data), _ALL
    for start in range(0, len(view), _BLOCK):
        state = _after(state, view[start : start + _BLOCK])
    return state ^ _ALL


def _table() -> NDArray[np.uint32]:
    """(2**16,) what two bytes make of an empty state."""
    states = np.arange(2**16, dtype=np.uint32)
    for _ in range(16):
        states = (states >> np.uint32(1)) ^ (_POLYNOMIAL * (states & np.uint32(1)))
    return states


_TABLE = _table()


def _after(state: int, data: memoryview) -> int:
    """The state after some more bytes."""
    if len(data) < _SHORT:
        for byte in data:
            state ^= byte
            for _ in range(8):
                state = (state >> 1) ^ (0x82F63B78 * (state & 1))
        return state
    steps = isqrt(len(data) // 2)
    lanes = -(-len(data) // (2 * steps))
    # Zeros in front change nothing of an empty state; the given one is taken in with the first four bytes.
    padded = np.zeros(2 * steps * lanes, np.uint8)
    content = padded[len(padded) - len(data) :]
    content[:] = np.frombuffer(data, np.uint8)
    content[:4] ^= np.frombuffer(state.to_bytes(4, "little"), np.uint8)
    words = np.ascontiguousarray(padded.view("<u2").reshape(lanes, steps).T)
    # Beside the lanes of data go 32 of zeros, one per bit: they find how a state moves on over a lane.
    states = np.concatenate([np.zeros(lanes, np.uint32), np.uint32(1) << np.arange(32, dtype=np.uint32)])
    for row in words:
        low = states & np.uint32(0xFFFF)
        low[:lanes] ^= row
        states = _TABLE[low] ^ (states >> np.uint32(16))
    moved, found = states[lanes:].tolist(), 0
    for lane in states[:lanes].tolist():
        found = _moved(found, moved) ^ lane
    return found


def _moved(state: int, moved: list[int]) -> int:
    """A state after a lane of zeros: the sum of what becomes of its bits."""
    found = 0
    while state:
        bit = state & -state
        found ^= moved[bit.bit_length() - 1]
        state ^= bit
    return found
