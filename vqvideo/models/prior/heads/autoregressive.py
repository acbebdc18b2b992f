"""The tokens of a step each given those before it, in raster order: the exact likelihood, and things that stay whole
where they move at random.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from vqvideo.models.prior.attention import SpaceAttention, attend
from vqvideo.models.prior.blocks import SpaceBlock
from vqvideo.models.prior.conditioning import PlainNorm
from vqvideo.models.prior.config import AutoregressiveHeadConfig
from vqvideo.models.prior.embedding import TokenEmbedding
from vqvideo.models.prior.heads.base import RasterHead
from vqvideo.models.prior.rotary import Rotation
from vqvideo.models.prior.sampling import TokenSampler


class RasterAttention(SpaceAttention):
    """Attention to the tokens before and the token itself, in raster order."""

    def forward(self, x: Tensor) -> Tensor:
        before = torch.ones(x.shape[2], x.shape[2], dtype=torch.bool, device=x.device).tril()
        return self.out(self._attended(x, before))

    def step(self, x: Tensor, past: tuple[Tensor, Tensor] | None, place: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The token (r, 1, d) at `place`, given keys and values (r, heads, place, e) of those before."""
        rotation = Rotation(self.cos[place], self.sin[place])
        q, k, v = (part.transpose(1, 2) for part in self.qkv(x, rotation))
        if past is not None:
            k, v = (torch.cat([old, new], dim=2) for old, new in zip(past, (k, v), strict=True))
        return self.out(rearrange(attend(q, k, v), "r m 1 e -> r 1 (m e)")), (k, v)


class RasterBlock(SpaceBlock):
    """Raster attention, then feed-forward."""

    attention: RasterAttention

    def step(self, x: Tensor, past: tuple[Tensor, Tensor] | None, place: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """See `RasterAttention.step`."""
        y, past = self.attention.step(self.norm_attention(x), past, place)
        x = x + y
        return x + self.mlp(self.norm_mlp(x)), past


class AutoregressiveHead(RasterHead):
    """p(z_1 .. z_n | past) = product of p(z_i | z_1 .. z_(i-1), past). The backbone has run already; only this small
    transformer runs n times.
    """

    def __init__(self, cfg: AutoregressiveHeadConfig, dim: int, grid: tuple[int, int], codebook: Tensor) -> None:
        super().__init__()
        self.embed = TokenEmbedding(codebook, dim, grid[0] * grid[1])
        self.first = nn.Parameter(torch.randn(dim) * 0.02)
        attentions = [RasterAttention(dim, cfg.heads, grid) for _ in range(cfg.layers)]
        self.blocks = nn.ModuleList(RasterBlock(each, dim, cfg.mlp_ratio, PlainNorm) for each in attentions)
        self.norm = nn.LayerNorm(dim, bias=False)
        self.out = nn.Linear(dim, len(codebook), bias=False)
        nn.init.normal_(self.out.weight, std=0.02)

    def normed(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """As `ExactHead`."""
        before = self.embed.vectors(codes[..., :-1])
        first = self.first.to(before.dtype).expand(*codes.shape[:2], 1, -1)
        x = hidden + torch.cat([first, before], dim=2) + self.embed.place
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def one_by_one(self, hidden: Tensor, sampler: TokenSampler) -> Tensor:
        """As `RasterHead`."""
        before = self.first.expand_as(hidden[:, :1])
        pasts: list[tuple[Tensor, Tensor] | None] = [None] * len(self.blocks)
        drawn = []
        for place in range(hidden.shape[1]):
            x = hidden[:, place : place + 1] + before + self.embed.place[place]
            for i, block in enumerate(self.blocks):
                assert isinstance(block, RasterBlock)
                x, pasts[i] = block.step(x, pasts[i], place)
            drawn.append(sampler(self.out(self.norm(x))))
            before = self.embed.vectors(drawn[-1])
        return torch.cat(drawn, dim=1)
