"""Causal convolution along time, what it remembers of a stream, and a norm that does not look along time.

Channels come last, (b, t, h, w, c): as oneDNN and cuDNN like them best, and so that norms and projections of the
channels need no copy.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqvideo.models.rows import with_rows


class TimeState(NamedTuple):
    """What the causal convolutions of one network remember of the past. Explicit, so that a stream can be
    forked, stored or reset row by row; nothing is kept on the modules.
    """

    past: tuple[Tensor, ...]
    """One (b, k - 1, h, w, c) tensor per temporal convolution, in the order of execution; empty at the start."""
    fresh: Tensor
    """(b,) bool: the row has seen nothing yet, its next frame is the first of a clip."""

    def reset(self, rows: Tensor) -> TimeState:
        """The same state with the rows of the (b,) bool mask `rows` at the start of a clip again."""
        return self._replace(fresh=self.fresh | rows.to(self.fresh.device))

    def part(self, rows: slice) -> TimeState:
        """Some rows, in the same memory."""
        return TimeState(tuple(past[rows] for past in self.past), self.fresh[rows])

    def rows(self, index: Tensor) -> TimeState:
        """The rows (r,) of `index` as a batch of their own."""
        return TimeState(tuple(past[index] for past in self.past), self.fresh[index])

    def with_rows(self, index: Tensor, other: TimeState) -> TimeState:
        """The same state with the rows (r,) of `index` taken from `other`, which has r rows."""
        pairs = zip(self.past, other.past, strict=True)
        past = tuple(with_rows(old, index, new) for old, new in pairs)
        return TimeState(past, with_rows(self.fresh, index, other.fresh))


class TimeWalk:
    """One pass over a network: hands each causal convolution its past and gathers what it must remember.

    A fresh row gets its own first frame repeated. So a clip behaves as if a still of its first frame had
    been shown forever before it, in every layer, whether it comes whole or step by step.
    """

    def __init__(self, state: TimeState) -> None:
        self._state = state
        self._next: list[Tensor] = []

    def extend(self, x: Tensor, length: int) -> Tensor:
        """Prepends `length` frames of the past to (b, t, h, w, c)."""
        still = x[:, :1].expand(-1, length, -1, -1, -1)
        if not self._state.past:
            past = still
        else:
            fresh = rearrange(self._state.fresh, "b -> b 1 1 1 1")
            past = torch.where(fresh, still, self._state.past[len(self._next)].to(x.dtype))
        x = torch.cat([past, x], dim=1)
        self._next.append(x[:, -length:])
        return x

    def finish(self) -> TimeState:
        """The state after this pass."""
        return TimeState(tuple(self._next), torch.zeros_like(self._state.fresh))


class CausalConv3d(nn.Module):
    """A 3-D convolution whose output at time t sees inputs up to t. (b, t, h, w, c) -> (b, t, h, w, c').

    A kernel that looks along space or along time alone is computed as the 2-D convolution that it is: on CPUs the 3-D
    one takes up to a third longer, and without threads it is not done by oneDNN at all. (For a single frame of a single
    stream it is the faster one.)
    """

    def __init__(self, c_in: int, c_out: int, kernel: tuple[int, int, int]) -> None:
        super().__init__()
        self.reach = kernel[0] - 1
        self.conv = nn.Conv3d(c_in, c_out, kernel, padding=(0, kernel[1] // 2, kernel[2] // 2))

    def forward(self, x: Tensor, walk: TimeWalk) -> Tensor:
        if self.reach:
            x = walk.extend(x, self.reach)
        weight, time, space = self.conv.weight, self.conv.kernel_size[0], self.conv.kernel_size[1:]
        if time == 1 and space == (1, 1):
            return pointwise(self.conv, x)
        if time == 1:
            y = _conv2d(x.flatten(0, 1), weight[:, :, 0], self.conv.bias, (space[0] // 2, space[1] // 2))
            return y.unflatten(0, x.shape[:2])
        if space == (1, 1) and len(x) * (x.shape[1] - self.reach) > 1:
            # Pictures whose height is time, and whose width are all places.
            y = _conv2d(x.flatten(2, 3), weight[..., 0], self.conv.bias, (0, 0))
            return y.unflatten(2, x.shape[2:4])
        return self.conv(x.movedim(-1, 1)).movedim(1, -1)


def pointwise(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """A convolution with a kernel of 1x1x1: a projection of the channels. (..., c) -> (..., c')."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """Pictures (n, h, w, c), without a copy: channels last is how oneDNN computes them."""
    return F.conv2d(x.movedim(-1, 1), weight, bias, padding=padding).movedim(1, -1)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each position of (b, t, h, w, c). A 5-D group norm would average over
    time and so leak the future into the past. (On CPUs the fused layer norm trains many times faster than an
    RMS norm made of single operations.)
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5)

    def forward(self, x: Tensor, walk: TimeWalk | None = None) -> Tensor:
        return super().forward(x)
