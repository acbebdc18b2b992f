"""Encoder and decoder of the tokenizer: causal 3-D convolutions between space-to-depth and depth-to-space.

Channels come last, (b, t, h, w, c), from the first layer to the last.

Time is grouped before space: a network sees whole groups of `t stride` frames, the last group ending with the
newest frame. See `vqvideo.models.tokenizer.vqvae` for how a clip of 1 + s k frames becomes 1 + k groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqvideo.models.tokenizer.causal import CausalConv3d, ChannelNorm, TimeWalk, pointwise

if TYPE_CHECKING:
    from vqvideo.models.tokenizer.backbone_config import ConvConfig, Stride


class Down(nn.Module):
    """Folds each (t, h, w) block of `stride` into channels. (b, t, h, w, c) -> (b, t/st, h/sh, w/sw, c')."""

    def __init__(self, c_in: int, c_out: int, stride: Stride) -> None:
        super().__init__()
        self.stride = stride
        self.project = nn.Conv3d(c_in * stride[0] * stride[1] * stride[2], c_out, 1)

    def forward(self, x: Tensor, walk: TimeWalk) -> Tensor:
        st, sh, sw = self.stride
        folded = rearrange(x, "b (t st) (h sh) (w sw) c -> b t h w (st sh sw c)", st=st, sh=sh, sw=sw)
        return pointwise(self.project, folded)


class Up(nn.Module):
    """Unfolds channels into (t, h, w) blocks of `stride`: the inverse of `Down` in shape."""

    def __init__(self, c_in: int, c_out: int, stride: Stride) -> None:
        super().__init__()
        self.stride = stride
        self.project = nn.Conv3d(c_in, c_out * stride[0] * stride[1] * stride[2], 1)

    def forward(self, x: Tensor, walk: TimeWalk) -> Tensor:
        st, sh, sw = self.stride
        x = pointwise(self.project, x)
        return rearrange(x, "b t h w (st sh sw c) -> b (t st) (h sh) (w sw) c", st=st, sh=sh, sw=sw)


class ResidualBlock(nn.Module):
    """x + a chain of norm, SiLU, causal convolution. The last convolution starts at zero."""

    def __init__(self, width: int, kernels: tuple[Stride, ...]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ChannelNorm(width) for _ in kernels)
        convs = [CausalConv3d(width, width, kernel) for kernel in kernels]
        nn.init.zeros_(convs[-1].conv.weight)
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor, walk: TimeWalk) -> Tensor:
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(F.silu(norm(y)), walk)
        return x + y


class Chain(nn.Module):
    """Layers in a row that share one walk through time."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, walk: TimeWalk) -> Tensor:
        for layer in self.layers:
            x = layer(x, walk)
        return x


def make_encoder(cfg: ConvConfig, dim: int) -> Chain:
    """(b, t, h, w, 3) -> (b, t / st, h / sh, w / sw, dim)."""
    width = cfg.widths[-1]
    return Chain([*encoder_levels(cfg), ChannelNorm(width), CausalConv3d(width, dim, (1, 1, 1))])


def encoder_levels(cfg: ConvConfig) -> list[nn.Module]:
    """(b, t, h, w, 3) -> (b, t / st, h / sh, w / sw, the last width)."""
    layers: list[nn.Module] = []
    width = 3
    for stride, wider in zip(cfg.level_strides, cfg.widths, strict=True):
        layers.append(Down(width, wider, stride))
        layers += [ResidualBlock(wider, cfg.kernels) for _ in range(cfg.encoder_blocks)]
        width = wider
    return layers


def make_decoder(cfg: ConvConfig, dim: int) -> Chain:
    """(b, t, h, w, dim) -> (b, t st, h sh, w sw, 3)."""
    return Chain([CausalConv3d(dim, cfg.widths[-1], (1, 3, 3)), *output_levels(cfg)])


def output_levels(cfg: ConvConfig) -> list[nn.Module]:
    """(b, t, h, w, the last width) -> (b, t st, h sh, w sw, 3)."""
    layers: list[nn.Module] = []
    narrower = (*cfg.widths[-2::-1], 3)
    for stride, width, following in zip(reversed(cfg.level_strides), reversed(cfg.widths), narrower, strict=True):
        layers += [ResidualBlock(width, cfg.kernels) for _ in range(cfg.decoder_blocks)]
        if following == 3:
            layers.append(ChannelNorm(width))
        layers.append(Up(width, following, stride))
    return layers
