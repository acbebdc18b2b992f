"""Random numbers that Python and JavaScript agree on: a counter-based generator of 32-bit whole numbers.

A number is a pure function of the seed, the dreamt step and its place in the step, so that nothing has to be drawn in
order and every row of a batch has a stream of its own. The hash is the finaliser of MurmurHash3 (Appleby, public
domain), applied once per coordinate. In JavaScript the products are `Math.imul` and the shifts `>>>`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BITS = 31
"""Of a number: it fits into an int32, which graphs and JavaScript share."""
_GOLDEN = np.uint32(0x9E3779B9)
_MIX = (np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35))


def keys(seeds: Sequence[int]) -> NDArray[np.uint32]:
    """(b,): what the streams of b seeds, whole numbers of at most 64 bits, begin from."""
    numbers = np.array([int(seed) % 2**64 for seed in seeds], np.uint64)
    low, high = (numbers & np.uint64(2**32 - 1)).astype(np.uint32), (numbers >> np.uint64(32)).astype(np.uint32)
    return _mixed(_mixed(low + _GOLDEN) ^ high)


def noise(keys: NDArray[np.uint32], steps: NDArray[np.int64], count: int) -> NDArray[np.int32]:
    """(b, count) numbers in 0 .. 2^31 - 1 of the dreamt steps (b,), which are counted from 0."""
    at = _mixed(keys ^ ((steps + 1).astype(np.uint32) * _GOLDEN))
    places = np.arange(1, count + 1, dtype=np.uint32) * _GOLDEN
    return (_mixed(at[:, None] ^ places) >> np.uint32(32 - BITS)).astype(np.int32)


def uniform(numbers: NDArray[np.int32]) -> NDArray[np.float64]:
    """The same numbers in 0 <= u < 1."""
    return numbers / 2.0**BITS


def _mixed(x: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """A bijection of 32 bits that spreads every input bit over all output bits. Overflow is meant."""
    x = (x ^ (x >> np.uint32(16))) * _MIX[0]
    x = (x ^ (x >> np.uint32(13))) * _MIX[1]
    return x ^ (x >> np.uint32(16))
