"""The tokens of a step by gated, masked convolutions: PixelCNN (van den Oord et al. 2016, arXiv:1606.05328, section 2).

A vertical stack reads the rows above, a horizontal one what is to the left in the same row, so that no token before is
out of sight. What the paper masks is shifted here, once: the vertical stack sees the tokens moved down by a row, the
horizontal one moved right by a column. From there on each layer may look at its own place, and all layers are alike.

Inside, tokens are pictures (r, e, h, w), with r = b t.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqvideo.models.prior.config import PixelCNNConfig
from vqvideo.models.prior.embedding import TokenEmbedding
from vqvideo.models.prior.heads.base import RasterHead
from vqvideo.models.prior.sampling import TokenSampler


def gated(x: Tensor) -> Tensor:
    """Equation 2: tanh of one half of the channels times sigmoid of the other. (r, 2e, h, w) -> (r, e, h, w)."""
    value, gate = x.chunk(2, dim=1)
    return torch.tanh(value) * torch.sigmoid(gate)


class Stacks(NamedTuple):
    """What goes from layer to layer."""

    vertical: Tensor
    """(r, e, h, w): what the rows above say."""
    horizontal: Tensor
    """(r, e, h, w): what all tokens before say."""


class GatedLayer(nn.Module):
    """Figure 2 of the paper, conditioned at each place on what the backbone knows of it (section 2.3).

    Args:
        dim: e.
        kernel: tokens that the vertical convolution sees side by side; it sees half as many above, and the horizontal
            one half as many to the left.
    """

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.vertical = nn.Conv2d(dim, 2 * dim, (self.reach + 1, kernel))
        self.horizontal = nn.Conv2d(dim, 2 * dim, (1, self.reach + 1))
        self.down = nn.Conv2d(2 * dim, 2 * dim, 1)
        self.condition = nn.Conv2d(dim, 4 * dim, 1)
        self.out = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Stacks, hidden: Tensor) -> Stacks:
        """All places at once; hidden (r, e, h, w)."""
        vertical, beside = self.row(F.pad(x.vertical, (0, 0, self.reach, 0)), hidden)
        return Stacks(vertical, self.place(F.pad(x.horizontal, (self.reach, 0)), beside))

    def row(self, above: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The vertical stack of h rows (r, e, h, w), and what the horizontal one takes of it (r, 2e, h, w).

        Args:
            above: (r, e, reach + h, w), the rows themselves below those that they reach up to.
            hidden: (r, e, h, w).
        """
        seen = self.vertical(F.pad(above, (self.reach, self.reach)))
        for_vertical, for_horizontal = self.condition(hidden).chunk(2, dim=1)
        return gated(seen + for_vertical), self.down(seen) + for_horizontal

    def place(self, before: Tensor, beside: Tensor) -> Tensor:
        """The horizontal stack of w places (r, e, h, w).

        Args:
            before: (r, e, h, reach + w), the places themselves to the right of those that they reach back to.
            beside: (r, 2e, h, w), from `row`.
        """
        own = before[..., self.reach :]
        return own + self.out(gated(self.horizontal(before) + beside))


class PixelCNN(RasterHead):
    """p(z_1 .. z_n | past) = product of p(z_i | z_1 .. z_(i-1), past), in raster order."""

    def __init__(self, cfg: PixelCNNConfig, dim: int, grid: tuple[int, int], codebook: Tensor) -> None:
        super().__init__()
        self.grid = grid
        self.embed = TokenEmbedding(codebook, dim, grid[0] * grid[1])
        self.layers = nn.ModuleList(GatedLayer(dim, cfg.kernel) for _ in range(cfg.layers))
        self.norm = nn.LayerNorm(dim, bias=False)
        self.out = nn.Linear(dim, len(codebook), bias=False)
        nn.init.normal_(self.out.weight, std=0.02)

    def normed(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """As `ExactHead`."""
        picture = self._picture(self.embed(codes).flatten(0, 1))
        condition = self._picture(hidden.flatten(0, 1))
        x = Stacks(F.pad(picture, (0, 0, 1, 0))[:, :, :-1], F.pad(picture, (1, 0))[..., :-1])
        for layer in self._layers:
            x = layer(x, condition)
        return self.norm(rearrange(x.horizontal, "(b t) e h w -> b t (h w) e", b=len(codes)))

    def one_by_one(self, hidden: Tensor, sampler: TokenSampler) -> Tensor:
        """As `RasterHead`."""
        condition = self._picture(hidden)
        row, drawn = torch.zeros_like(condition[:, :, :1]), []
        above = [row.expand(-1, -1, layer.reach, -1) for layer in self._layers]
        for y in range(self.grid[0]):
            beside = []
            for i, layer in enumerate(self._layers):
                window = torch.cat([above[i], row], dim=2)
                above[i] = window[:, :, 1:]
                row, taken = layer.row(window, condition[:, :, y : y + 1])
                beside.append(taken)
            codes, row = self._sampled_row(beside, y, sampler)
            drawn.append(codes)
        return torch.cat(drawn, dim=1)

    def _sampled_row(self, beside: list[Tensor], y: int, sampler: TokenSampler) -> tuple[Tensor, Tensor]:
        """Codes (r, w) of row y and their picture (r, e, 1, w); `beside` as `GatedLayer.place` takes it, by layer."""
        token = torch.zeros_like(beside[0][:, : self.out.in_features, :, :1])
        before = [token.expand(-1, -1, -1, layer.reach) for layer in self._layers]
        drawn, tokens = [], []
        for x in range(self.grid[1]):
            for i, layer in enumerate(self._layers):
                window = torch.cat([before[i], token], dim=3)
                before[i] = window[..., 1:]
                token = layer.place(window, beside[i][..., x : x + 1])
            drawn.append(sampler(self.out(self.norm(rearrange(token, "r e 1 1 -> r 1 e")))))
            vector = self.embed.vectors(drawn[-1]) + self.embed.place[y * self.grid[1] + x]
            token = rearrange(vector, "r 1 e -> r e 1 1")
            tokens.append(token)
        return torch.cat(drawn, dim=1), torch.cat(tokens, dim=3)

    @property
    def _layers(self) -> list[GatedLayer]:
        return list(self.layers)  # type: ignore[arg-type]

    def _picture(self, tokens: Tensor) -> Tensor:
        return rearrange(tokens, "r (h w) e -> r e h w", h=self.grid[0])
