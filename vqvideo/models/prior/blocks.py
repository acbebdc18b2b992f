"""The blocks of the transformer: attention and feed-forward, each pre-norm and added to the stream."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from vqvideo.models.prior.attention import GatedMLP, TimeAttention
from vqvideo.models.prior.memory import KVCache, Now

Norm = Callable[[int], nn.Module]
"""From a width to a norm that is called with the stream and the action."""


class Block(nn.Module):
    """Attention, then feed-forward. (b, t, n, d) -> same."""

    def __init__(self, attention: nn.Module, dim: int, mlp_ratio: float, norm: Norm) -> None:
        super().__init__()
        self.attention = attention
        self.norm_attention, self.norm_mlp = norm(dim), norm(dim)
        self.mlp = GatedMLP(dim, mlp_ratio)

    def forward(self, x: Tensor, action: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm_attention(x, action))
        return x + self.mlp(self.norm_mlp(x, action))


class SpaceBlock(Block):
    """Attention among the tokens of a latent step."""


class TimeBlock(Block):
    """Attention along time at each place."""

    attention: TimeAttention

    def step(self, x: Tensor, action: Tensor, cache: KVCache, now: Now) -> Tensor:
        """One latent step (b, 1, n, d); see `TimeAttention.step`."""
        x = x + self.attention.step(self.norm_attention(x, action), cache, now)
        return x + self.mlp(self.norm_mlp(x, action))
