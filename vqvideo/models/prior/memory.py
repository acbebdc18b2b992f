"""What the temporal layers remember of a dream: the keys and values of its last latent steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node

from vqvideo.models.prior.rotary import TIME_BASE, Rotation, clock_angles
from vqvideo.models.rows import with_rows


class KVCache:
    """Keys and values of the last `window` latent steps of one temporal layer, the newest last.

    Keys are stored as rotated by the clock of their step; only differences of clocks matter.

    A window into buffers that are longer: the next step is written behind it, where no older cache looks. So a step
    copies nothing, and yet each cache goes on showing what it showed. Only where a second dream goes on from the same
    cache, or where the buffers end, is the window copied into new ones.

    Args:
        k, v: (b, n, heads, window, e).
    """

    def __init__(self, k: Tensor, v: Tensor) -> None:
        self.k, self.v = k, v
        self._room: _Room | None = None
        self._end = k.shape[-2]

    @classmethod
    def empty(cls, like: Tensor, shape: tuple[int, ...]) -> KVCache:
        """Nothing yet, for keys and values of `shape`, of the type and on the device of `like`."""
        return cls(like.new_zeros(shape), like.new_zeros(shape))

    def moved(self) -> KVCache:
        """The window one step later. Its last slot, that of the newest step, is still to be written."""
        # What was made in torch.inference_mode() can be written to only there.
        sealed = self.k.is_inference() and not torch.is_inference_mode_enabled()
        if sealed or self._room is None or not self._room.takes(self._end):
            return self._in_new_room().moved()
        return self._room.window(self._end + 1, self.k.shape[-2])

    def part(self, rows: slice) -> KVCache:
        """Some rows, in the same memory."""
        return self if rows == slice(0, len(self.k)) else KVCache(self.k[rows], self.v[rows])

    def rows(self, index: Tensor) -> KVCache:
        """The rows (r,) of `index` as a batch of their own."""
        return KVCache(self.k[index], self.v[index])

    def with_rows(self, index: Tensor, other: KVCache) -> KVCache:
        """The same cache with the rows (r,) of `index` taken from `other`, which has r rows and the same clock."""
        return KVCache(with_rows(self.k, index, other.k), with_rows(self.v, index, other.v))

    def later(self, steps: int) -> KVCache:
        """The same cache as if it had been filled `steps` ticks of the clock later (earlier when negative)."""
        rotation = Rotation.by(clock_angles(steps, self.k.shape[-1], TIME_BASE, self.k.device))
        return KVCache(rotation(self.k), self.v)

    def _in_new_room(self) -> KVCache:
        window = self.k.shape[-2]
        room = _Room(*(torch.cat([part, torch.zeros_like(part)], dim=-2) for part in (self.k, self.v)))
        return room.window(window, window)


class _Room:
    """Buffers (b, n, heads, slots, e) of keys and values. Each slot is given to one step, and never again."""

    def __init__(self, k: Tensor, v: Tensor) -> None:
        self.k, self.v = k, v
        self._owners: dict[int, object] = {}

    def takes(self, slot: int) -> bool:
        """Whether the slot was free; it is the caller's now."""
        owner = object()
        # One operation, for two threads could go on from the same dream.
        return slot < self.k.shape[-2] and self._owners.setdefault(slot, owner) is owner

    def window(self, end: int, length: int) -> KVCache:
        """The cache of the `length` slots before `end`."""
        cache = KVCache(*(part.narrow(-2, end - length, length) for part in (self.k, self.v)))
        cache._room, cache._end = self, end
        return cache


# For functions of whole states: copies of the tensors are a cache of their own.
register_pytree_node(KVCache, lambda cache: ([cache.k, cache.v], None), lambda parts, _: KVCache(*parts))


class Seen(NamedTuple):
    """How many latent steps the rows have taken, at most the window."""

    steps: Tensor
    """(b,) int64."""
    least: int
    """No row has taken fewer, as far as is known without asking the device."""
    most: int
    """No row has taken more."""

    @classmethod
    def nothing(cls, rows: int, device: torch.device) -> Seen:
        """At the start."""
        return cls(torch.zeros(rows, dtype=torch.int64, device=device), 0, 0)

    def more(self, window: int) -> Seen:
        """After one more step."""
        return Seen((self.steps + 1).clamp(max=window), min(self.least + 1, window), min(self.most + 1, window))

    def rows(self, index: Tensor) -> Seen:
        """Of the rows (r,) of `index`."""
        return self._replace(steps=self.steps[index])

    def with_rows(self, index: Tensor, other: Seen) -> Seen:
        """With the rows (r,) of `index` taken from `other`, which has r rows."""
        steps = with_rows(self.steps, index, other.steps)
        return Seen(steps, min(self.least, other.least), max(self.most, other.most))


class Now(NamedTuple):
    """What a latent step is to all temporal layers alike."""

    rotation: Rotation
    """By the clock: (e,)."""
    span: int
    """How many steps any row looks back, the newest included."""
    visible: Tensor | None
    """(b, 1, 1, 1, span) bool: where each row may look; None if every row may look at all of it."""

    @classmethod
    def at(cls, clock: int, seen: Seen, dim: int) -> Now:
        """At a clock, for rows that have seen so much, this step included; `dim`: e."""
        device = seen.steps.device
        rotation = Rotation.by(clock_angles(clock, dim, TIME_BASE, device))
        if seen.least == seen.most:
            return cls(rotation, seen.most, None)
        age = torch.arange(seen.most - 1, -1, -1, device=device)
        return cls(rotation, seen.most, (age < seen.steps[:, None])[:, None, None, None])

    def part(self, rows: slice) -> Now:
        """Of some rows."""
        return self if self.visible is None else self._replace(visible=self.visible[rows])
