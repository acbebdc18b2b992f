"""The contract of the heads: they turn what the backbone knows of a latent step into its n tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vqvideo.models.prior.cross_entropy import TokenLoss
from vqvideo.models.prior.sampling import TokenSampler


class Likelihood(NamedTuple):
    """How likely a prior finds real codes."""

    nats: Tensor
    """(b, t): minus the log-likelihood of all n tokens of a latent step, given the steps before it."""
    kind: str
    """exact; or bound: an unbiased estimate of an upper bound."""


class Head(nn.Module, ABC):
    """Draws the tokens of a latent step."""

    @abstractmethod
    def forward(self, hidden: Tensor, codes: Tensor, generator: torch.Generator | None = None) -> TokenLoss:
        """One training pass: the mean loss over the tokens that are predicted, from hidden (b, t, n, e) and the codes
        (b, t, n) that it should lead to; what is drawn comes from `generator`.
        """

    @abstractmethod
    def sample(self, hidden: Tensor, sampler: TokenSampler) -> Tensor:
        """Codes (r, n) for hidden (r, n, e). All codes come from `sampler`, which also knows of guidance."""

    @abstractmethod
    def likelihood(self, hidden: Tensor, codes: Tensor, generator: torch.Generator | None = None) -> Likelihood:
        """Of codes (b, t, n) given hidden (b, t, n, e)."""


def nats(logits: Tensor, codes: Tensor) -> Tensor:
    """Cross-entropy of each token: (..., k), (...) -> (...)."""
    return nn.functional.cross_entropy(logits.float().flatten(0, -2), codes.flatten(), reduction="none").view_as(codes)
