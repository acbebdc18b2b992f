"""Attention over space and time, and gated layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqvideo.models.precision import SinglePrecisionBuffers
from vqvideo.models.prior.memory import KVCache, Now
from vqvideo.models.prior.rotary import TIME_BASE, Rotation, rotary_angles


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


class QKV(nn.Module):
    """Queries, keys and values with QK norm (Dehghani et al. 2023, arXiv:2302.05442), queries and keys turned.

    (..., d) -> three (..., heads, e).
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(dim, 3 * dim, bias=False)
        self.norm_q, self.norm_k = (nn.LayerNorm(dim // heads, bias=False) for _ in range(2))

    def forward(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """`rotation`: of what broadcasts to (..., heads, e)."""
        q, k, v = self.project(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return rotation(self.norm_q(q)), rotation(self.norm_k(k)), v


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention of (..., n, e) queries; `mask` is True where a query may look.

    On CPUs in plain products where torch's fused kernel is slower: for the backward pass of our short sequences it
    takes up to ten times as long in bf16, and a single query is not worth its while.
    """
    if q.device.type != "cpu" or not (torch.is_grad_enabled() or q.shape[-2] == 1):
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

    cos: Tensor
    sin: Tensor

    def __init__(self, dim: int, heads: int, grid: tuple[int, int], extra: int = 0) -> None:
        super().__init__()
        self.qkv = QKV(dim, heads)
        self.out = nn.Linear(dim, dim, bias=False)
        row, column = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
        half = dim // heads // 2
        angles = torch.cat([rotary_angles(p.flatten(), half, base=100.0) for p in (row, column)], dim=-1)
        rotation = Rotation.by(rearrange(F.pad(angles, (0, 0, 0, extra)), "n e -> n 1 e"))
        self.register_buffer("cos", rotation.cos, persistent=False)
        self.register_buffer("sin", rotation.sin, persistent=False)

    @property
    def rotation(self) -> Rotation:
        """By the place of each token: (n, 1, e)."""
        return Rotation(self.cos, self.sin)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self._attended(x))

    def _attended(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        # Views instead of einops here and below: a pattern takes a few microseconds, and this is called in every layer.
        q, k, v = (part.transpose(1, 2) for part in self.qkv(x.flatten(0, 1), self.rotation))
        return attend(q, k, v, mask).transpose(1, 2).reshape(x.shape)


class TimeAttention(nn.Module):
    """Causal attention over the last `window` latent steps at the same place. (b, t, n, d) -> same."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.qkv = QKV(dim, heads)
        self.out = nn.Linear(dim, dim, bias=False)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _, width = x.shape
        steps = torch.arange(length, device=x.device)
        age = steps[:, None] - steps
        angles = rotary_angles(steps, width // self.qkv.heads, TIME_BASE)
        q, k, v = self.qkv(rearrange(x, "b t n d -> (b n) t d"), Rotation.by(angles[:, None]))
        seen = (age >= 0) & (age < self.window)
        y = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), seen)
        return self.out(rearrange(y, "(b n) m t e -> b t n (m e)", b=batch))

    def init_cache(self, batch: int, tokens: int) -> KVCache:
        """An empty cache for `batch` rows of `tokens` tokens."""
        weight = self.out.weight
        return KVCache.empty(weight, (batch, tokens, self.qkv.heads, self.window, len(weight) // self.qkv.heads))

    def step(self, x: Tensor, cache: KVCache, now: Now) -> Tensor:
        """The newest latent step (b, 1, n, d); its keys and values are written into the last slot of the cache."""
        q, k, v = self.qkv(x[:, 0], now.rotation)
        cache.k[..., -1, :], cache.v[..., -1, :] = k, v
        keys, values = (part[..., -now.span :, :].to(q.dtype) for part in (cache.k, cache.v))
        mask = None if now.visible is None else now.visible.expand(-1, x.shape[2], -1, -1, -1).flatten(0, 1)
        # Four dimensions take torch's fused kernels, five do not.
        y = attend(q.flatten(0, 1)[:, :, None], keys.flatten(0, 1), values.flatten(0, 1), mask)
        return self.out(y.reshape(x.shape))
