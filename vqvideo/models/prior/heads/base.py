"""The contract of the heads: they turn what the backbone knows of a latent step into its n tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vqvideo.models.prior.cross_entropy import TokenLoss, linear_cross_entropy, shares
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
    def forward(
        self,
        hidden: Tensor,
        codes: Tensor,
        generator: torch.Generator | None = None,
        counted: Tensor | None = None,
    ) -> TokenLoss:
        """One training pass: the mean loss over the tokens that are predicted, from hidden (b, t, n, e) and the codes
        (b, t, n) that it should lead to; what is drawn comes from `generator`. With `counted` (b, t) bool, only those
        of some steps.
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


class ExactHead(Head):
    """The logits of a step's tokens are a projection, each token's of what may be known of it: the exact likelihood."""

    out: nn.Linear
    """To logits."""

    @abstractmethod
    def normed(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """(b, t, n, e): what the logits are a projection of, each token's given at most the codes (b, t, n) before
        it.
        """

    def forward(
        self,
        hidden: Tensor,
        codes: Tensor,
        generator: torch.Generator | None = None,
        counted: Tensor | None = None,
    ) -> TokenLoss:
        return linear_cross_entropy(self.normed(hidden, codes), self.out.weight, codes, shares(counted, codes))

    def likelihood(self, hidden: Tensor, codes: Tensor, generator: torch.Generator | None = None) -> Likelihood:
        return Likelihood(nats(self.out(self.normed(hidden, codes)), codes).sum(dim=-1), "exact")


class RasterHead(ExactHead):
    """The tokens of a step in raster order, each given those before it."""

    def logits(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """(b, t, n, k), each token's given the codes (b, t, n) before it."""
        return self.out(self.normed(hidden, codes))

    def sample(self, hidden: Tensor, sampler: TokenSampler) -> Tensor:
        """As `Head`."""
        if not sampler.revises:
            return self.one_by_one(hidden, sampler)
        return sampler.settled(hidden, lambda x, codes: self.logits(x[:, None], codes[:, None])[:, 0], self.one_by_one)

    @abstractmethod
    def one_by_one(self, hidden: Tensor, sampler: TokenSampler) -> Tensor:
        """As `sample`, each token asked for once, when those before it are known."""
