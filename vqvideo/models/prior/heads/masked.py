"""The tokens of a step in a few passes: MaskGIT (Chang et al. 2022, arXiv:2202.04200)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn

from vqvideo.models.prior.attention import SpaceAttention
from vqvideo.models.prior.blocks import SpaceBlock
from vqvideo.models.prior.conditioning import PlainNorm
from vqvideo.models.prior.config import MaskedHeadConfig
from vqvideo.models.prior.cross_entropy import TokenLoss, linear_cross_entropy
from vqvideo.models.prior.embedding import TokenEmbedding
from vqvideo.models.prior.heads.base import Head, Likelihood, nats
from vqvideo.models.prior.sampling import TokenSampler


class MaskedHead(Head):
    """Learns to fill in any subset of the tokens; draws them in random order, fewest first.

    The order is random, and not by confidence: the most confident tokens are those that stay as they were, and a dream
    that begins with them tends to stand still.
    """

    def __init__(self, cfg: MaskedHeadConfig, dim: int, grid: tuple[int, int], codebook: Tensor) -> None:
        super().__init__()
        self.passes = cfg.passes
        self.embed = TokenEmbedding(codebook, dim, grid[0] * grid[1])
        self.mask = nn.Parameter(torch.randn(dim) * 0.02)
        self.blocks = nn.ModuleList(
            SpaceBlock(SpaceAttention(dim, cfg.heads, grid), dim, cfg.mlp_ratio, PlainNorm) for _ in range(cfg.layers)
        )
        self.norm = nn.LayerNorm(dim, bias=False)
        self.out = nn.Linear(dim, len(codebook), bias=False)
        nn.init.normal_(self.out.weight, std=0.02)

    def trunk(self, hidden: Tensor, codes: Tensor, masked: Tensor) -> Tensor:
        """(b, t, n, e) with the codes (b, t, n) where `masked` (b, t, n) is False."""
        shown = torch.where(masked[..., None], self.mask + self.embed.place, self.embed(codes))
        x = hidden + shown.to(hidden.dtype)
        for block in self.blocks:
            x = block(x)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """(..., e) -> (..., k)."""
        return self.out(self.norm(x))

    def forward(
        self,
        hidden: Tensor,
        codes: Tensor,
        generator: torch.Generator | None = None,
        counted: Tensor | None = None,
    ) -> TokenLoss:
        angle = torch.rand(codes.shape[:2], device=codes.device, generator=generator) * math.pi / 2
        masked = _random_mask(codes, torch.cos(angle), generator)
        x = self.norm(self.trunk(hidden, codes, masked))
        missed = masked if counted is None else masked & counted[..., None]
        return linear_cross_entropy(x, self.out.weight, codes, missed / missed.sum().clamp(min=1))

    def sample(self, hidden: Tensor, sampler: TokenSampler) -> Tensor:
        rows, n = hidden.shape[:2]
        order = sampler.order(rows, n, hidden.device)
        codes = torch.zeros_like(hidden[..., 0], dtype=torch.int64)
        masked = torch.ones_like(codes, dtype=torch.bool)
        ends = [math.ceil(n * (1 - math.cos(math.pi / 2 * i / self.passes))) for i in range(self.passes)] + [n]
        for first, last in pairwise(ends):
            chosen = order[:, first:last]
            if chosen.shape[1]:
                x = self.trunk(hidden[:, None], codes[:, None], masked[:, None])[:, 0]
                there = x.gather(1, chosen[..., None].expand(-1, -1, x.shape[-1]))
                codes = codes.scatter(1, chosen, sampler(self.logits(there)))
                masked = masked.scatter(1, chosen, torch.zeros_like(chosen, dtype=torch.bool))
        return codes

    def likelihood(self, hidden: Tensor, codes: Tensor, generator: torch.Generator | None = None) -> Likelihood:
        """One draw of an upper bound: the tokens in random order, each given those before it. With m of n tokens
        hidden, m uniform, n times their mean cross-entropy estimates the sum over the whole order without bias
        (Uria et al. 2014, arXiv:1310.1757, eq. 12); by Jensen the mean over orders is at least the true value.
        """
        n = codes.shape[-1]
        count = torch.randint(1, n + 1, codes.shape[:2], device=codes.device, generator=generator)
        masked = _random_mask(codes, count / n, generator)
        found = nats(self.logits(self.trunk(hidden, codes, masked)), codes)
        return Likelihood(n * (found * masked).sum(dim=-1) / masked.sum(dim=-1), "bound")


def _random_mask(codes: Tensor, share: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """(b, t, n) bool: a random subset, at least one token, of the (b, t) share of each step."""
    n = codes.shape[-1]
    rank = torch.rand(codes.shape, device=codes.device, generator=generator).argsort(dim=-1).argsort(dim=-1)
    return rank < rearrange((share * n).round().clamp(min=1), "b t -> b t 1")
