"""What a latent step brings beside its codes: the reward, and whether the episode ends."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqvideo.losses import symexp, symlog, two_hot


class RewardHead(nn.Module):
    """Two-hot symlog reward (Hafner et al. 2023, arXiv:2301.04104) over the recorded range. (b, t, d) -> bins."""

    bins: Tensor

    def __init__(self, dim: int, low: float, high: float, bins: int = 64) -> None:
        super().__init__()
        edges = symlog(torch.tensor([low, high], dtype=torch.float32))
        if edges[1] - edges[0] < 1e-3:
            edges = edges + torch.tensor([-1.0, 1.0])
        self.register_buffer("bins", torch.linspace(float(edges[0]), float(edges[1]), bins))
        self.out = nn.Linear(dim, bins)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x)

    def loss(self, logits: Tensor, reward: Tensor) -> Tensor:
        """Cross-entropy against the two bins next to each reward."""
        return -(two_hot(symlog(reward), self.bins) * logits.float().log_softmax(dim=-1)).sum(dim=-1).mean()

    def mean(self, logits: Tensor) -> Tensor:
        """Expected reward (...) of logits (..., bins)."""
        return (logits.float().softmax(dim=-1) * symexp(self.bins)).sum(dim=-1)
