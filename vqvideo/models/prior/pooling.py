"""From the places of a latent step to one vector: what reward and termination are read from."""

from __future__ import annotations

from dataclasses import dataclass

from einops import einsum, rearrange
from torch import Tensor, nn

from vqvideo.errors import InputError


@dataclass(frozen=True)
class MeanPoolingConfig:
    """All places count alike: for rewards that the whole picture earns."""

    def build(self, dim: int) -> MeanPooling:
        """For places of width `dim`."""
        return MeanPooling()


@dataclass(frozen=True)
class AttentionPoolingConfig:
    """Learned queries look for the places that matter: for rewards and ends that one small thing decides, which a mean
    over all places would drown.
    """

    queries: int = 4
    """Learned queries; each reads its own share of the width."""

    def build(self, dim: int) -> AttentionPooling:
        """For places of width `dim`.

        Raises:
            InputError: the queries do not divide the width.
        """
        if self.queries < 1 or dim % self.queries:
            raise InputError(f"prior.pooling.queries is {self.queries}, expected a divisor of prior.dim {dim}")
        return AttentionPooling(dim, self.queries)


class MeanPooling(nn.Module):
    """The mean over the places. (b, t, n, d) -> (b, t, d)."""

    def forward(self, places: Tensor) -> Tensor:
        return places.mean(dim=2)


class AttentionPooling(nn.Module):
    """Attention of m learned queries over the places. (b, t, n, d) -> (b, t, d)."""

    def __init__(self, dim: int, queries: int) -> None:
        super().__init__()
        self.queries = queries
        self.norm = nn.LayerNorm(dim, bias=False)
        self.score = nn.Linear(dim, queries, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)

    def forward(self, places: Tensor) -> Tensor:
        x = self.norm(places)
        weights = self.score(x).softmax(dim=2)
        values = rearrange(self.value(x), "b t n (m e) -> b t n m e", m=self.queries)
        return rearrange(einsum(weights, values, "b t n m, b t n m e -> b t m e"), "b t m e -> b t (m e)")


PoolingConfig = MeanPoolingConfig | AttentionPoolingConfig
