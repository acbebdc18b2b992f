"""The encoder and the decoder of Neural Discrete Representation Learning (van den Oord et al. 2017, arXiv:1711.00937,
section 4.1): strided and transposed convolutions around residual blocks, every frame by itself.

Channels come last, (b, t, h, w, c), as in the other backbones.
"""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqvideo.models.tokenizer.backbones import Chain
from vqvideo.models.tokenizer.causal import CausalConv3d, TimeWalk

if TYPE_CHECKING:
    from vqvideo.models.tokenizer.backbone_config import StridedConv


class Resampling(nn.Module):
    """A strided 4x4 convolution, which halves height and width, or a transposed one, which doubles them."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, walk: TimeWalk) -> Tensor:
        y = self.conv(x.flatten(0, 1).movedim(-1, 1)).movedim(1, -1)
        return y.unflatten(0, x.shape[:2])


def halving(c_in: int, c_out: int) -> Resampling:
    """(b, t, h, w, c) -> (b, t, h/2, w/2, c')."""
    return Resampling(nn.Conv2d(c_in, c_out, 4, stride=2, padding=1))


def doubling(c_in: int, c_out: int) -> Resampling:
    """(b, t, h, w, c) -> (b, t, 2h, 2w, c')."""
    return Resampling(nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1))


class ReLU(nn.Module):
    """Between layers."""

    def forward(self, x: Tensor, walk: TimeWalk) -> Tensor:
        return F.relu(x)


class StridedBlock(nn.Module):
    """x + ReLU, 3x3 convolution, ReLU, 1x1 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = CausalConv3d(width, width, (1, 3, 3))
        self.mix = CausalConv3d(width, width, (1, 1, 1))

    def forward(self, x: Tensor, walk: TimeWalk) -> Tensor:
        return x + self.mix(F.relu(self.wide(F.relu(x), walk)), walk)


class IntoColumns(nn.Module):
    """(b, t, h, w, n d) -> (b, t, h, w n, d): the latents of a cell beside each other."""

    def __init__(self, per_cell: int) -> None:
        super().__init__()
        self.per_cell = per_cell

    def forward(self, x: Tensor, walk: TimeWalk) -> Tensor:
        return rearrange(x, "b t h w (n d) -> b t h (w n) d", n=self.per_cell)


class FromColumns(IntoColumns):
    """The inverse of `IntoColumns`."""

    def forward(self, x: Tensor, walk: TimeWalk) -> Tensor:
        return rearrange(x, "b t h (w n) d -> b t h w (n d)", n=self.per_cell)


def make_encoder(cfg: StridedConv, dim: int) -> Chain:
    """(b, t, h, w, 3) -> (b, t, h / sh, w / sw * per_cell, dim)."""
    layers: list[nn.Module] = [halving(3, cfg.width)]
    for _ in range(_halvings(cfg) - 1):
        layers += [ReLU(), halving(cfg.width, cfg.width)]
    layers += [StridedBlock(cfg.width) for _ in range(cfg.blocks)]
    into = CausalConv3d(cfg.width, dim * cfg.per_cell, (1, 1, 1))
    return Chain([*layers, ReLU(), into, IntoColumns(cfg.per_cell)])


def make_decoder(cfg: StridedConv, dim: int) -> Chain:
    """(b, t, h, w * per_cell, dim) -> (b, t, h sh, w sw, 3)."""
    # The article does not say what leads from the latents to the width of the blocks; a 3x3 convolution in its code.
    layers: list[nn.Module] = [FromColumns(cfg.per_cell), CausalConv3d(dim * cfg.per_cell, cfg.width, (1, 3, 3))]
    layers += [StridedBlock(cfg.width) for _ in range(cfg.blocks)]
    for _ in range(_halvings(cfg) - 1):
        layers += [ReLU(), doubling(cfg.width, cfg.width)]
    return Chain([*layers, ReLU(), doubling(cfg.width, 3)])


def _halvings(cfg: StridedConv) -> int:
    return int(log2(cfg.strides[1]))
