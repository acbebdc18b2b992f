"""All tokens of a step at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqvideo.models.prior.config import ParallelHeadConfig
from vqvideo.models.prior.cross_entropy import TokenLoss, linear_cross_entropy, shares
from vqvideo.models.prior.heads.base import Head, Likelihood, nats
from vqvideo.models.prior.sampling import TokenSampler


class ParallelHead(Head):
    """All tokens at once. Its likelihood is exact: that of a model in which the tokens of a step are independent."""

    def __init__(self, cfg: ParallelHeadConfig, dim: int, grid: tuple[int, int], codebook: Tensor) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, bias=False)
        self.out = nn.Linear(dim, len(codebook), bias=False)
        nn.init.normal_(self.out.weight, std=0.02)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., e) -> (..., k)."""
        return self.out(self.norm(hidden))

    def forward(
        self,
        hidden: Tensor,
        codes: Tensor,
        generator: torch.Generator | None = None,
        counted: Tensor | None = None,
    ) -> TokenLoss:
        return linear_cross_entropy(self.norm(hidden), self.out.weight, codes, shares(counted, codes))

    def sample(self, hidden: Tensor, sampler: TokenSampler) -> Tensor:
        return sampler.draw(hidden, self.logits)

    def likelihood(self, hidden: Tensor, codes: Tensor, generator: torch.Generator | None = None) -> Likelihood:
        return Likelihood(nats(self.logits(hidden), codes).sum(dim=-1), "exact")
