"""Where random numbers come from: a `torch.Generator` for a whole batch, or a stream of its own for every row.

With `RowStreams` what happens to one row does not depend on which rows are beside it: a batch of dreams gives the
dreams that each of its rows would have had alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vqvideo.models.device import has_float64


def wrapped(number: int) -> int:
    """The int64 of the same 64 bits."""
    return (number + 2**63) % 2**64 - 2**63


_GOLDEN = wrapped(0x9E3779B97F4A7C15)
_CALLS = wrapped(0xD1B54A32D192ED03)
_MIX = (wrapped(0xBF58476D1CE4E5B9), wrapped(0x94D049BB133111EB))


class RowStreams:
    """One stream of uniform numbers per row, as a pure function of (key of the row, its event, call, place).

    Counter-based: nothing has to be drawn in order, so all rows are drawn at once on any device, and on every device
    come the same numbers (where there is no float64, without their last digits). The hash is the finaliser of
    SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"), applied once per
    coordinate.

    Args:
        rows: b, how many.
        device: where the numbers are made.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.keys = torch.zeros(rows, dtype=torch.int64, device=device)
        """(b,): seeds of the rows, mixed."""
        self.events = torch.zeros(rows, dtype=torch.int64, device=device)
        """(b,): how many events each row has had."""
        self._calls = self._again = 0
        self._event = self.keys

    def seed(self, rows: Tensor, seeds: Tensor) -> None:
        """Starts the streams of the rows (r,) at their beginnings again, from seeds (r,) int64."""
        self.keys[rows] = _mixed(seeds.to(self.keys) + _GOLDEN)
        self.events[rows] = 0
        self._event = _mixed(self.keys + _GOLDEN * self.events)

    def begin_event(self, happens: Tensor) -> None:
        """A step or a reset begins for the rows where the (b,) bool is True: their next numbers are fresh."""
        self.events += happens
        self._event = _mixed(self.keys + _GOLDEN * self.events)
        self._calls = self._again = 0

    def uniform(self, shape: tuple[int, ...], *, again: Tensor | None = None) -> Tensor:
        """(b, ...) float64 in 0 <= u < 1, other numbers at each call; float32 where the device has no float64.

        Args:
            shape: whose first number is b.
            again: (r,) flat places of the last call whose numbers are replaced; gives (r,). How often that happens may
                depend on other rows; the numbers of the next call do not depend on it.
        """
        if shape[0] != len(self.keys):
            raise ValueError(f"{shape[0]} rows of random numbers from {len(self.keys)} streams")
        width = math.prod(shape[1:])
        if again is None:
            self._calls, self._again = self._calls + 1, 0
            places = torch.arange(1, 1 + width, device=self.keys.device)
            return _unit(_mixed(self._call()[:, None] + _GOLDEN * places)).reshape(shape)
        self._again += 1
        return _unit(_mixed(self._call()[again // width] + _GOLDEN * (1 + again % width)))

    def _call(self) -> Tensor:
        """(b,): what the numbers of this call begin from."""
        return _mixed(self._event + wrapped(_CALLS * (self._calls + (self._again << 32))))


Randomness = torch.Generator | RowStreams | None
"""A source of random numbers on the device of the model; None is torch's own."""


def uniform(shape: tuple[int, ...], source: Randomness, device: torch.device, at: Tensor | None = None) -> Tensor:
    """Uniform numbers of `shape` in 0 <= u < 1 as float64, or as float32 where the device has none; with `at` (r,), new
    ones for these flat places, as (r,).
    """
    if isinstance(source, RowStreams):
        return source.uniform(shape, again=at)
    shape = shape if at is None else tuple(at.shape)
    dtype = torch.float64 if has_float64(device) else torch.float32
    return torch.rand(shape, generator=source, device=device, dtype=dtype)


def _unit(bits: Tensor) -> Tensor:
    """The upper 53 of 64 bits as float64 in 0 <= u < 1, or the upper 24 as float32 where the device has no float64. The
    shift keeps the sign, which the mask removes.
    """
    if not has_float64(bits.device):
        return ((bits >> 40) & (2**24 - 1)).float().mul_(2.0**-24)
    return ((bits >> 11) & (2**53 - 1)).double().mul_(2.0**-53)


def _mixed(x: Tensor) -> Tensor:
    """A bijection of int64 that spreads every input bit over all output bits. Overflow is meant."""
    x = (x ^ _shifted(x, 30)) * _MIX[0]
    x = (x ^ _shifted(x, 27)) * _MIX[1]
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shifted right as if without a sign."""
    return (x >> bits) & (2 ** (64 - bits) - 1)


def with_rows(values: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """A copy of values (b, ...) with the rows (r,) of `index` replaced by (r, ...)."""
    return values.index_copy(0, index, rows.to(values.dtype))
