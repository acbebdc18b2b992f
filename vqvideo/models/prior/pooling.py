"""From the places of a latent step to one vector: what reward and termination are read from."""

from __future__ import annotations

from typing import ClassVar

import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from vqvideo.models.prior.config import AttentionPoolingConfig, DrawnPoolingConfig, MeanPoolingConfig


class MeanPooling(nn.Module):
    """The mean over the places. (b, t, n, d) -> (b, t, d)."""

    looks: ClassVar[bool] = False
    """Whether it also takes the tokens that were drawn, embedded as the places are."""

    def __init__(self, cfg: MeanPoolingConfig, dim: int) -> None:
        super().__init__()

    def forward(self, places: Tensor, drawn: Tensor | None = None) -> Tensor:
        return places.mean(dim=2)


class AttentionPooling(nn.Module):
    """Attention of m learned queries over the places. (b, t, n, d) -> (b, t, d)."""

    looks: ClassVar[bool] = False

    def __init__(self, cfg: AttentionPoolingConfig | DrawnPoolingConfig, dim: int) -> None:
        super().__init__()
        self.queries = queries = cfg.queries
        self.norm = nn.LayerNorm(dim, bias=False)
        self.score = nn.Linear(dim, queries, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)

    def forward(self, places: Tensor, drawn: Tensor | None = None) -> Tensor:
        x = self.norm(places)
        weights = self.score(x).softmax(dim=2)
        values = rearrange(self.value(x), "b t n (m e) -> b t n m e", m=self.queries)
        return rearrange(einsum(weights, values, "b t n m, b t n m e -> b t m e"), "b t m e -> b t (m e)")


class DrawnPooling(AttentionPooling):
    """Attention over the places (b, t, n, d) and the embedded tokens that were drawn there, (b, t, n, d). In training
    these are the real ones.
    """

    looks = True

    def __init__(self, cfg: DrawnPoolingConfig, dim: int) -> None:
        super().__init__(cfg, dim)
        self.known, self.shown = nn.LayerNorm(dim, bias=False), nn.LayerNorm(dim, bias=False)
        self.both = nn.Sequential(nn.Linear(2 * dim, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, places: Tensor, drawn: Tensor | None = None) -> Tensor:
        assert drawn is not None
        return super().forward(self.both(torch.cat([self.known(places), self.shown(drawn)], dim=-1)))
