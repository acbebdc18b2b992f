"""All tokens of a step at once."""

from __future__ import annotations

from torch import Tensor, nn

from vqvideo.models.prior.config import ParallelHeadConfig
from vqvideo.models.prior.heads.base import ExactHead
from vqvideo.models.prior.sampling import TokenSampler


class ParallelHead(ExactHead):
    """All tokens at once. Its likelihood is exact: that of a model in which the tokens of a step are independent."""

    def __init__(self, cfg: ParallelHeadConfig, dim: int, grid: tuple[int, int], codebook: Tensor) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, bias=False)
        self.out = nn.Linear(dim, len(codebook), bias=False)
        nn.init.normal_(self.out.weight, std=0.02)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., e) -> (..., k)."""
        return self.out(self.norm(hidden))

    def normed(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """As `ExactHead`; no token knows of others."""
        return self.norm(hidden)

    def sample(self, hidden: Tensor, sampler: TokenSampler) -> Tensor:
        return sampler.draw(hidden, self.logits)
