"""Encoder and decoder of two levels of codes, as in VQ-VAE-2, with causal convolutions.

Generating Diverse High-Fidelity Images with VQ-VAE-2 (Razavi, van den Oord and Vinyals 2019, arXiv:1906.00446).

The top level has half the height and width of the bottom level. In the grid its rows stand first, two of them side by
side: a latent step of h x w tokens at the bottom is one of (h/4 + h) x w. Channels come last, (b, t, h, w, c).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn

from vqvideo.models.precision import single
from vqvideo.models.quantizers.base import Quantizer, fp32, straight_through
from vqvideo.models.tokenizer.backbones import Chain, Down, ResidualBlock, Up, encoder_levels, output_levels
from vqvideo.models.tokenizer.causal import CausalConv3d, ChannelNorm, TimeWalk

if TYPE_CHECKING:
    from vqvideo.models.tokenizer.backbone_config import TwoLevelConv

_HALF = (1, 2, 2)


def joined(top: Tensor, bottom: Tensor) -> Tensor:
    """The grid (b, t, h/4 + h, w, d) of a top level (b, t, h/2, w/2, d) and a bottom level (b, t, h, w, d)."""
    return torch.cat([rearrange(top, "b t (h two) w d -> b t h (two w) d", two=2), bottom], dim=2)


def parted(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Top level and bottom level of a grid: the inverse of `joined`."""
    rows = grid.shape[2] // 5
    return rearrange(grid[:, :, :rows], "b t h (two w) d -> b t (h two) w d", two=2), grid[:, :, rows:]


def quantized(quantizer: Quantizer, z: Tensor) -> Tensor:
    """The code vectors of latents (..., d), with a gradient straight through to them. Nothing learns from it: the same
    latents are quantized again with the whole grid.
    """
    with fp32(z):
        z = single(z)
        return straight_through(z, quantizer.decode(quantizer.encode(z.detach())))


class TwoLevelEncoder(nn.Module):
    """(b, t, h, w, 3) -> (b, t / st, rows of the top level and of the bottom level, w / sw, dim)."""

    def __init__(self, cfg: TwoLevelConv, quantizer: Quantizer) -> None:
        super().__init__()
        # Not a module of this one: the quantizer belongs to the tokenizer.
        self._quantized = partial(quantized, quantizer)
        width, dim = cfg.widths[-1], quantizer.dim
        self.bottom = Chain(encoder_levels(cfg))
        self.top = Chain([Down(width, cfg.top_width, _HALF), *_blocks(cfg), *_latents(cfg.top_width, dim)])
        self.told = _up(cfg, dim)
        self.given_top = Chain([*_latents(2 * width, dim)])

    def forward(self, frames: Tensor, walk: TimeWalk) -> Tensor:
        bottom = self.bottom(frames, walk)
        top = self.top(bottom, walk)
        told = self.told(self._quantized(top).to(bottom.dtype), walk)
        return joined(top, self.given_top(torch.cat([bottom, told], dim=-1), walk))


class TwoLevelDecoder(nn.Module):
    """(b, t, rows of the top level and of the bottom level, w, dim) -> (b, t st, h sh, w sw, 3)."""

    def __init__(self, cfg: TwoLevelConv, dim: int) -> None:
        super().__init__()
        width = cfg.widths[-1]
        self.top = _up(cfg, dim)
        self.both = CausalConv3d(width + dim, width, (1, 3, 3))
        self.output = Chain(output_levels(cfg))

    def forward(self, values: Tensor, walk: TimeWalk) -> Tensor:
        top, bottom = parted(values)
        both = torch.cat([self.top(top, walk), bottom], dim=-1)
        return self.output(self.both(both, walk), walk)


def _up(cfg: TwoLevelConv, dim: int) -> Chain:
    """Code vectors of the top level to features at the resolution of the bottom level."""
    return Chain([CausalConv3d(dim, cfg.top_width, (1, 3, 3)), *_blocks(cfg), Up(cfg.top_width, cfg.widths[-1], _HALF)])


def _blocks(cfg: TwoLevelConv) -> list[nn.Module]:
    return [ResidualBlock(cfg.top_width, cfg.kernels) for _ in range(cfg.top_blocks)]


def _latents(width: int, dim: int) -> list[nn.Module]:
    return [ChannelNorm(width), CausalConv3d(width, dim, (1, 1, 1))]
