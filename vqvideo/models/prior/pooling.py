"""From the places of a latent step to one vector: what reward and termination are read from."""

from __future__ import annotations

from einops import einsum, rearrange
from torch import Tensor, nn

from vqvideo.models.prior.config import AttentionPoolingConfig, MeanPoolingConfig


class MeanPooling(nn.Module):
    """The mean over the places. (b, t, n, d) -> (b, t, d)."""

    def __init__(self, cfg: MeanPoolingConfig, dim: int) -> None:
        super().__init__()

    def forward(self, places: Tensor) -> Tensor:
        return places.mean(dim=2)


class AttentionPooling(nn.Module):
    """Attention of m learned queries over the places. (b, t, n, d) -> (b, t, d)."""

    def __init__(self, cfg: AttentionPoolingConfig, dim: int) -> None:
        super().__init__()
        self.queries = queries = cfg.queries
        self.norm = nn.LayerNorm(dim, bias=False)
        self.score = nn.Linear(dim, queries, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)

    def forward(self, places: Tensor) -> Tensor:
        x = self.norm(places)
        weights = self.score(x).softmax(dim=2)
        values = rearrange(self.value(x), "b t n (m e) -> b t n m e", m=self.queries)
        return rearrange(einsum(weights, values, "b t n m, b t n m e -> b t m e"), "b t m e -> b t (m e)")
