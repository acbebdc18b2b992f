"""What a latent step brings beside its codes: the reward, and whether the episode ends."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvideo.models.precision import SinglePrecisionBuffers
from vqvideo.models.prior.sampling import entropy

_LARGEST = 0.999 * torch.finfo(torch.float32).max


class RewardHead(SinglePrecisionBuffers):
    """The reward as a distribution over bins that are spread evenly in symlog space over the recorded range
    (Hafner et al. 2023, arXiv:2301.04104). (b, t, d) -> bins.

    If the smallest recorded reward is the largest as well (a pole earns 1 for every step that it stands), it is the
    expected reward of every step, exactly; bins around it are there for the shape's sake.
    """

    bins: Tensor

    def __init__(self, dim: int, low: float, high: float, bins: int = 64) -> None:
        super().__init__()
        self.out = nn.Linear(dim, bins)
        # On the CPU also where the model is only sketched, on the meta device: where the bins are depends on numbers.
        with torch.device("cpu"):
            edges = symlog(torch.tensor([low, high], dtype=torch.float32))
            if edges[1] - edges[0] < 1e-3:
                edges = edges + torch.tensor([-1.0, 1.0])
            places = _with_zero(torch.linspace(float(edges[0]), float(edges[1]), bins))
        self.register_buffer("bins", places.to(self.out.weight.device))
        nn.init.zeros_(self.out.weight)
        self.constant = low if low == high else None

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x)

    def loss(self, logits: Tensor, reward: Tensor, weights: Tensor | None = None) -> Tensor:
        """Cross-entropy against the two bins next to each reward (b, t), weighted by `weights` (b, t)."""
        nats = -(self.targets(reward) * logits.float().log_softmax(dim=-1)).sum(dim=-1)
        return weighted_mean(nats, weights)

    def targets(self, reward: Tensor) -> Tensor:
        """Weights (..., bins) of the bins for rewards (...): their mean value is the reward."""
        return two_hot(reward.float(), self.values)

    def mean(self, logits: Tensor) -> Tensor:
        """Expected reward (...) of logits (..., bins)."""
        if self.constant is not None:
            return logits.new_full(logits.shape[:-1], self.constant, dtype=torch.float32).clamp(-_LARGEST, _LARGEST)
        return (logits.float().softmax(dim=-1) * self.values).sum(dim=-1)

    def entropy(self, logits: Tensor) -> Tensor:
        """Entropy in nats (...) of logits (..., bins)."""
        nats = entropy(logits)
        return nats if self.constant is None else torch.zeros_like(nats)

    @property
    def values(self) -> Tensor:
        """(bins,): the rewards that they stand for, a little less than the largest number at most: so means are finite
        too.
        """
        return symexp(self.bins.float()).clamp(-_LARGEST, _LARGEST)


class SymlogRewardHead(RewardHead):
    """The head of worlds of format 3 and older: the mean symlog of its targets is that of the reward, the mean value is
    not.
    """

    def targets(self, reward: Tensor) -> Tensor:
        return two_hot(symlog(reward), self.bins.float())


def _with_zero(bins: Tensor) -> Tensor:
    """The nearest bin moved to 0, if 0 lies between them: the commonest reward is then one bin and not two halves."""
    if bins[0] < 0 < bins[-1]:
        bins[bins.abs().argmin()] = 0
    return bins


def termination_loss(logits: Tensor, terminated: Tensor, weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of logits (b, t) for terminated (b, t) bool, weighted by `weights` (b, t)."""
    return weighted_mean(F.binary_cross_entropy_with_logits(logits, terminated.float(), reduction="none"), weights)


def termination_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats (...) of whether the episode ends, of logits (...)."""
    return entropy(torch.stack([logits, torch.zeros_like(logits)], dim=-1))


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of values times weights whose own mean is 1 over the data set, not over the batch."""
    return (values if weights is None else values * weights).mean()


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|) (Hafner et al. 2023, arXiv:2301.04104, eq. 9)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """The inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


def two_hot(x: Tensor, bins: Tensor) -> Tensor:
    """Weights (..., bins) on the two sorted bins next to x (...), summing to 1 (arXiv:2301.04104, eq. 10)."""
    x = x.clamp(bins[0], bins[-1])
    upper = torch.searchsorted(bins, x.contiguous()).clamp(1, len(bins) - 1)
    low, high = bins[upper - 1], bins[upper]
    share = (x - low) / (high - low)
    weights = x.new_zeros(*x.shape, len(bins))
    weights.scatter_(-1, upper[..., None], share[..., None])
    return weights.scatter_(-1, upper[..., None] - 1, 1 - share[..., None])
