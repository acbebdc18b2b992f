"""Encoder and decoder of the tokenizer: causal 3-D convolutions between space-to-depth and depth-to-space.

Time is grouped before space: a network sees whole groups of `t stride` frames, the last group ending with the
newest frame. See `vqvideo.models.tokenizer.vqvae` for how a clip of 1 + s k frames becomes 1 + k groups.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqvideo.errors import InputError
from vqvideo.models.tokenizer.causal import CausalConv3d, ChannelNorm, TimeWalk

Stride = tuple[int, int, int]


class Down(nn.Module):
    """Folds each (t, h, w) block of `stride` into channels. (b, c, t, h, w) -> (b, c', t/st, h/sh, w/sw)."""

    def __init__(self, c_in: int, c_out: int, stride: Stride) -> None:
        super().__init__()
        self.stride = stride
        self.project = nn.Conv3d(c_in * stride[0] * stride[1] * stride[2], c_out, 1)

    def forward(self, x: Tensor, walk: TimeWalk) -> Tensor:
        st, sh, sw = self.stride
        folded = rearrange(x, "b c (t st) (h sh) (w sw) -> b (st sh sw c) t h w", st=st, sh=sh, sw=sw)
        return self.project(folded)


class Up(nn.Module):
    """Unfolds channels into (t, h, w) blocks of `stride`: the inverse of `Down` in shape."""

    def __init__(self, c_in: int, c_out: int, stride: Stride) -> None:
        super().__init__()
        self.stride = stride
        self.project = nn.Conv3d(c_in, c_out * stride[0] * stride[1] * stride[2], 1)

    def forward(self, x: Tensor, walk: TimeWalk) -> Tensor:
        st, sh, sw = self.stride
        x = self.project(x)
        return rearrange(x, "b (st sh sw c) t h w -> b c (t st) (h sh) (w sw)", st=st, sh=sh, sw=sw)


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


@dataclass(frozen=True)
class ConvConfig:
    """What the convolutional backbones share."""

    time_strides: ClassVar[tuple[int, ...]] = (1, 2, 4)
    """Time strides that it can have."""
    least_blocks: ClassVar[int] = 1
    """Residual blocks per level, at least."""

    strides: Stride = (2, 8, 8)
    """Frames, rows and columns per latent cell: time 1, 2 or 4; height and width powers of two."""
    patch: int = 4
    """Side of the squares that the stem folds into channels (space-to-depth)."""
    widths: tuple[int, ...] = (64, 128)
    """Channels per level, from the stem's resolution downwards; each further level halves height and width."""
    encoder_blocks: int = 2
    """Residual blocks per level of the encoder."""
    decoder_blocks: int = 2
    """Residual blocks per level of the decoder."""

    def __post_init__(self) -> None:
        t, h, w = self.strides
        if t not in self.time_strides:
            expected = " or ".join(map(str, self.time_strides))
            raise InputError(f"backbone.strides {self.strides}: the time stride is {t}, expected {expected}")
        if any(side < self.patch or side & (side - 1) for side in (h, w)) or self.patch & (self.patch - 1):
            raise InputError(
                f"backbone.strides {self.strides} with patch {self.patch}: "
                "height and width strides are powers of two, the patch or more"
            )
        if min(self.encoder_blocks, self.decoder_blocks) < self.least_blocks:
            raise InputError(
                f"backbone.encoder_blocks {self.encoder_blocks} and decoder_blocks {self.decoder_blocks}: "
                f"expected at least {self.least_blocks}, the residual blocks look back in time"
            )
        if len(self.widths) != len(self.level_strides):
            raise InputError(
                f"backbone.widths {self.widths}: strides {self.strides} with patch {self.patch} make "
                f"{len(self.level_strides)} levels, give one width for each"
            )

    @property
    @abstractmethod
    def kernels(self) -> tuple[Stride, ...]:
        """Kernels of a residual block, in order."""

    @property
    def level_strides(self) -> tuple[Stride, ...]:
        """The fold in front of each level. Time is folded last, where the grid is smallest."""
        t, h, w = self.strides
        rest = [h // self.patch, w // self.patch]
        strides: list[Stride] = [(1, self.patch, self.patch)]
        while max(rest) > 1:
            fold = [2 if side > 1 else 1 for side in rest]
            rest = [side // f for side, f in zip(rest, fold, strict=True)]
            strides.append((1, fold[0], fold[1]))
        strides[-1] = (t, *strides[-1][1:])
        return tuple(strides)

    def encoder(self, dim: int) -> Chain:
        """(b, 3, t, h, w) -> (b, dim, t / st, h / sh, w / sw)."""
        layers: list[nn.Module] = []
        width = 3
        for stride, wider in zip(self.level_strides, self.widths, strict=True):
            layers.append(Down(width, wider, stride))
            layers += [ResidualBlock(wider, self.kernels) for _ in range(self.encoder_blocks)]
            width = wider
        return Chain([*layers, ChannelNorm(width), CausalConv3d(width, dim, (1, 1, 1))])

    def decoder(self, dim: int) -> Chain:
        """(b, dim, t, h, w) -> (b, 3, t st, h sh, w sw)."""
        layers: list[nn.Module] = [CausalConv3d(dim, self.widths[-1], (1, 3, 3))]
        narrower = (*self.widths[-2::-1], 3)
        for stride, width, following in zip(reversed(self.level_strides), reversed(self.widths), narrower, strict=True):
            layers += [ResidualBlock(width, self.kernels) for _ in range(self.decoder_blocks)]
            if following == 3:
                layers.append(ChannelNorm(width))
            layers.append(Up(width, following, stride))
        return Chain(layers)


@dataclass(frozen=True)
class FactorisedConv(ConvConfig):
    """Residual blocks of a spatial (1, 3, 3) and a temporal (3, 1, 1) convolution: less than half the cost."""

    @property
    def kernels(self) -> tuple[Stride, ...]:
        return ((1, 3, 3), (3, 1, 1))


@dataclass(frozen=True)
class FullConv(ConvConfig):
    """Residual blocks of two full (3, 3, 3) convolutions."""

    @property
    def kernels(self) -> tuple[Stride, ...]:
        return ((3, 3, 3), (3, 3, 3))


@dataclass(frozen=True)
class FrameConv(ConvConfig):
    """Every frame by itself: the same frame always has the same codes, whatever was before it. For worlds that a single
    frame tells all of, where an agent decides at every step. Without residual blocks each token is its own cell of the
    picture and no more, which suits games made of tiles.
    """

    time_strides: ClassVar[tuple[int, ...]] = (1,)
    least_blocks: ClassVar[int] = 0

    strides: Stride = (1, 8, 8)
    """Frames and pixels per latent step and token: (1, h, w)."""

    @property
    def kernels(self) -> tuple[Stride, ...]:
        return ((1, 3, 3), (1, 1, 1))


BackboneConfig = FactorisedConv | FullConv | FrameConv
