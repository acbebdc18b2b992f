"""Attention over space and time: rotary positions, cached keys and values, gated layers."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqvideo.models.device import sent
from vqvideo.models.precision import SinglePrecisionBuffers
from vqvideo.models.rows import with_rows


class GatedMLP(nn.Module):
    """SwiGLU feed-forward (Shazeer 2020, arXiv:2002.05202). (..., d) -> (..., d)."""

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__()
        hidden = int(dim * ratio * 2 / 3 / 8) * 8
        self.gate_and_value = nn.Linear(dim, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * value)


def rotary_angles(positions: Tensor, dim: int, base: float) -> Tensor:
    """Angles of rotary position embeddings (Su et al. 2021, arXiv:2104.09864): (...,) -> (..., dim / 2)."""
    rates = base ** (-torch.arange(0, dim, 2, device=positions.device, dtype=torch.float32) / dim)
    return positions.float()[..., None] * rates


def clock_angles(clock: int, dim: int, base: float, device: torch.device) -> Tensor:
    """`rotary_angles` of one step (dim / 2,), reduced to one turn in double precision: the millionth step of a dream is
    as exact as the first.
    """
    rates = base ** (-torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    return sent(torch.remainder(clock * rates.double(), 2 * math.pi).float(), device)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turns pairs of features of (..., e) by (..., e / 2) angles."""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class QKV(nn.Module):
    """Queries, keys and values with QK norm (Dehghani et al. 2023, arXiv:2302.05442).

    (..., n, d) -> three (..., heads, n, e).
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(dim, 3 * dim, bias=False)
        self.norm_q, self.norm_k = (nn.LayerNorm(dim // heads, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = rearrange(self.project(x), "... n (three m e) -> three ... m n e", three=3, m=self.heads)
        return self.norm_q(q), self.norm_k(k), v


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention of (..., n, e) queries; `mask` is True where a query may look.

    On CPUs in plain products: torch's fused kernel takes up to ten times as long for the backward pass of our short
    sequences in bf16.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(dim=-1).to(v.dtype) @ v


class SpaceAttention(SinglePrecisionBuffers):
    """Full attention among the n tokens of a latent step, rotary in height and width. (b, t, n, d) -> same.

    Args:
        dim, heads: width and attention heads.
        grid: height and width of the grid.
        extra: tokens after those of the grid that have no position.
    """

    angles: Tensor

    def __init__(self, dim: int, heads: int, grid: tuple[int, int], extra: int = 0) -> None:
        super().__init__()
        self.qkv = QKV(dim, heads)
        self.out = nn.Linear(dim, dim, bias=False)
        row, column = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
        half = dim // heads // 2
        angles = torch.cat([rotary_angles(p.flatten(), half, base=100.0) for p in (row, column)], dim=-1)
        self.register_buffer("angles", F.pad(angles, (0, 0, 0, extra)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        q, k, v = self.qkv(rearrange(x, "b t n d -> (b t) n d"))
        y = attend(rotate(q, self.angles), rotate(k, self.angles), v)
        return self.out(rearrange(y, "(b t) m n e -> b t n (m e)", b=batch))


TIME_BASE = 100.0
"""Base of the rotary angles along time."""


class KVCache(NamedTuple):
    """Keys and values of the last `window` latent steps of one temporal layer, a ring along time.

    Keys are stored as rotated by the clock of their step; only differences of clocks matter.
    """

    k: Tensor
    """(b, n, heads, window, e)."""
    v: Tensor

    def rows(self, index: Tensor) -> KVCache:
        """The rows (r,) of `index` as a batch of their own."""
        return KVCache(self.k[index], self.v[index])

    def with_rows(self, index: Tensor, other: KVCache) -> KVCache:
        """The same ring with the rows (r,) of `index` taken from `other`, which has r rows and the same clock."""
        return KVCache(with_rows(self.k, index, other.k), with_rows(self.v, index, other.v))

    def later(self, steps: int) -> KVCache:
        """The same ring as if it had been filled `steps` ticks of the clock later (earlier when negative)."""
        window = self.k.shape[-2]
        angles = clock_angles(steps, self.k.shape[-1], TIME_BASE, self.k.device)
        return KVCache(rotate(self.k, angles).roll(steps % window, -2), self.v.roll(steps % window, -2))


class TimeAttention(nn.Module):
    """Causal attention over the last `window` latent steps at the same place. (b, t, n, d) -> same."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.qkv = QKV(dim, heads)
        self.out = nn.Linear(dim, dim, bias=False)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        batch, length = x.shape[:2]
        steps = torch.arange(length, device=x.device)
        age = steps[:, None] - steps
        q, k, v = self.qkv(rearrange(x, "b t n d -> (b n) t d"))
        angles = rotary_angles(steps, q.shape[-1], TIME_BASE)
        seen = (age >= 0) & (age < self.window)
        y = attend(rotate(q, angles), rotate(k, angles), v, seen)
        return self.out(rearrange(y, "(b n) m t e -> b t n (m e)", b=batch))

    def init_cache(self, batch: int, tokens: int) -> KVCache:
        """An empty ring for `batch` rows of `tokens` tokens."""
        weight = self.out.weight
        shape = (batch, tokens, self.qkv.heads, self.window, weight.shape[0] // self.qkv.heads)
        return KVCache(weight.new_zeros(shape), weight.new_zeros(shape))

    def step(self, x: Tensor, cache: KVCache, clock: int, seen: Tensor) -> tuple[Tensor, KVCache]:
        """One latent step with a cache.

        Args:
            x: (b, 1, n, d), the newest step.
            cache: the ring before this step; it is not changed.
            clock: how many steps were taken since the ring began (any row).
            seen: (b,) int, how many steps back each row may look, itself included.
        """
        batch, places = x.shape[0], x.shape[2]
        q, k, v = self.qkv(rearrange(x, "b 1 n d -> b n 1 d"))
        angles = clock_angles(clock, q.shape[-1], TIME_BASE, x.device)
        slot = clock % self.window
        ring = KVCache(_with_slot(cache.k, slot, rotate(k, angles)), _with_slot(cache.v, slot, v))
        age = (slot - torch.arange(self.window, device=x.device)) % self.window
        visible = rearrange(age < seen[:, None], "b w -> b 1 1 1 w").expand(-1, places, -1, -1, -1)
        # Four dimensions take torch's fused kernels, five do not.
        keys, values = (part.to(q.dtype).flatten(0, 1) for part in ring)
        y = attend(rotate(q, angles).flatten(0, 1), keys, values, visible.flatten(0, 1))
        return self.out(rearrange(y, "(b n) m 1 e -> b 1 n (m e)", b=batch)), ring


def _with_slot(ring: Tensor, slot: int, value: Tensor) -> Tensor:
    """A copy of the ring (b, n, heads, window, e) with one slot replaced."""
    ring = ring.clone()
    ring[:, :, :, slot : slot + 1] = value
    return ring
