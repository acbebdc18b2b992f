"""Settings of encoders and decoders. Without torch: the modules are loaded when they are built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, ClassVar, Self

from vqvideo.errors import InputError, at_least

if TYPE_CHECKING:
    from torch import nn

    from vqvideo.models.quantizers.base import Quantizer

Stride = tuple[int, int, int]


def fitting_sizes(size: tuple[int, int], cell: tuple[int, int]) -> str:
    """The nearest frame sizes below and above `size` whose height and width are multiples of those of `cell`, to be
    shown: "80 or 88", or "80x96 or 88x104" where height and width differ.
    """
    below = tuple(side // c * c for side, c in zip(size, cell, strict=True))
    above = tuple(-(-side // c) * c for side, c in zip(size, cell, strict=True))
    fitting = dict.fromkeys(sides for sides in (below, above) if min(sides) > 0)
    return " or ".join(f"{h}" if h == w else f"{h}x{w}" for h, w in fitting)


@dataclass(frozen=True)
class Backbone(ABC):
    """What all backbones share: encoder and decoder, and how they cut frames into cells."""

    time_strides: ClassVar[tuple[int, ...]] = (1, 2, 4)
    """Time strides that it can have."""

    strides: Stride = (2, 8, 8)
    """Frames, rows and columns per latent cell: time 1, 2 or 4; height and width powers of two."""

    @property
    @abstractmethod
    def patch(self) -> int:
        """Side of the squares that the stem folds into channels."""

    @abstractmethod
    def encoder(self, quantizer: Quantizer) -> nn.Module:
        """What makes latents (b, t / st, h, w, d) of signed frames (b, t, h, w, 3), in one walk through time."""

    @abstractmethod
    def decoder(self, dim: int) -> nn.Module:
        """What makes signed frames (b, t st, h, w, 3) of code vectors (b, t, h, w, dim)."""

    @abstractmethod
    def coarser(self) -> Self:
        """The same network on squares of pixels with twice the side."""

    def __post_init__(self) -> None:
        t = self.strides[0]
        if t not in self.time_strides:
            expected = " or ".join(map(str, self.time_strides))
            raise InputError(f"backbone.strides {self.strides}: the time stride is {t}, expected {expected}")

    @property
    def cell(self) -> tuple[int, int]:
        """Height and width of the smallest piece that frames can be cut into, in pixels."""
        return self.strides[1:]

    def grid_of(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tokens that frames of (h, w) pixels make.

        Raises:
            InputError: a side is no multiple of that of a cell; it names the nearest sizes that fit.
        """
        (h, w), (ch, cw), (_, sh, sw) = frame_size, self.cell, self.strides
        if h % ch or w % cw:
            raise InputError(
                f"frames of {h}x{w} cannot be cut into cells of {ch}x{cw}: record with --frame-size "
                f"{fitting_sizes(frame_size, self.cell)}, or change backbone.strides"
            )
        return h // sh, w // sw

    def coarsened(self, frame_size: tuple[int, int], most_tokens: int, multiple: int = 1) -> Self:
        """The same network on larger squares of pixels: stem and strides are doubled, and doubled again, until frames
        make `most_tokens` tokens per latent step or fewer. Its grids stay as small as those of smaller frames.

        Args:
            frame_size: (h, w) in pixels.
            most_tokens: the limit. More are left where the sides of the frames cannot be divided any further.
            multiple: what rows and columns of tokens must stay a multiple of.
        """
        (h, w), (ch, cw) = frame_size, self.cell
        if h % (2 * ch * multiple) or w % (2 * cw * multiple) or prod(self.grid_of(frame_size)) <= most_tokens:
            return self
        return self.coarser().coarsened(frame_size, most_tokens, multiple)


@dataclass(frozen=True)
class ConvConfig(Backbone):
    """What the backbones of residual blocks between space-to-depth and depth-to-space share."""

    least_blocks: ClassVar[int] = 1
    """Residual blocks per level, at least."""

    patch: int = 4
    """Side of the squares that the stem folds into channels (space-to-depth)."""
    widths: tuple[int, ...] = (64, 128)
    """Channels per level, from the stem's resolution downwards; each further level halves height and width."""
    encoder_blocks: int = 2
    """Residual blocks per level of the encoder."""
    decoder_blocks: int = 2
    """Residual blocks per level of the decoder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _, h, w = self.strides
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
        if min(self.widths) < 1:
            raise InputError(f"backbone.widths {self.widths}: expected at least 1 channel per level")

    def encoder(self, quantizer: Quantizer) -> nn.Module:
        from vqvideo.models.tokenizer.backbones import make_encoder

        return make_encoder(self, quantizer.dim)

    def decoder(self, dim: int) -> nn.Module:
        from vqvideo.models.tokenizer.backbones import make_decoder

        return make_decoder(self, dim)

    def coarser(self) -> Self:
        t, h, w = self.strides
        return replace(self, strides=(t, 2 * h, 2 * w), patch=2 * self.patch)

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


@dataclass(frozen=True)
class StridedConv(Backbone):
    """The network of the first article (van den Oord et al. 2017, arXiv:1711.00937, section 4.1), frame by frame:
    strided 4x4 convolutions, residual blocks of ReLU, 3x3, ReLU, 1x1, and transposed 4x4 convolutions back.
    """

    time_strides: ClassVar[tuple[int, ...]] = (1,)
    patch: ClassVar[int] = 1

    strides: Stride = (1, 4, 4)
    """Frames and pixels per latent step and cell: (1, h, h), h a power of two, with a strided convolution for each."""
    width: int = 256
    """Channels of all layers."""
    blocks: int = 2
    """Residual blocks of the encoder, and of the decoder."""
    per_cell: int = 1
    """Latents of a cell, beside each other in the grid of tokens: a field of 8x8x10 latents is a grid of 8x80."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _, h, w = self.strides
        if h != w or h < 2 or h & (h - 1):
            raise InputError(
                f"backbone.strides {self.strides}: expected height and width to be the same power of two, such as 4"
            )
        at_least(self, "backbone.", width=1, blocks=0, per_cell=1)

    def encoder(self, quantizer: Quantizer) -> nn.Module:
        from vqvideo.models.tokenizer.strided import make_encoder

        return make_encoder(self, quantizer.dim)

    def decoder(self, dim: int) -> nn.Module:
        from vqvideo.models.tokenizer.strided import make_decoder

        return make_decoder(self, dim)

    def coarser(self) -> Self:
        t, h, w = self.strides
        return replace(self, strides=(t, 2 * h, 2 * w))

    def grid_of(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        rows, columns = super().grid_of(frame_size)
        return rows, columns * self.per_cell


@dataclass(frozen=True)
class TwoLevelConv(FactorisedConv):
    """Two levels of codes (VQ-VAE-2, Razavi et al. 2019, arXiv:1906.00446): a top level of half the height and width is
    quantized first, and what is encoded at the bottom level knows it.

    The rows of the top level, two side by side, stand above those of the bottom level in the grid of tokens. So a prior
    that draws tokens in their order draws the top level first, and the bottom level given it. One codebook serves both:
    which of its codes are for which level is learnt.
    """

    widths: tuple[int, ...] = (64, 128)
    """Channels per level of resolution, from the stem's downwards to that of the bottom level of codes."""
    top_width: int = 128
    """Channels at the resolution of the top level."""
    top_blocks: int = 2
    """Residual blocks there, of the encoder and of the decoder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, "backbone.", top_width=1, top_blocks=1)

    def encoder(self, quantizer: Quantizer) -> nn.Module:
        from vqvideo.models.tokenizer.two_levels import TwoLevelEncoder

        return TwoLevelEncoder(self, quantizer)

    def decoder(self, dim: int) -> nn.Module:
        from vqvideo.models.tokenizer.two_levels import TwoLevelDecoder

        return TwoLevelDecoder(self, dim)

    @property
    def cell(self) -> tuple[int, int]:
        # A row of the grid holds two of the top level.
        _, sh, sw = self.strides
        return 4 * sh, 2 * sw

    def grid_of(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        rows, columns = super().grid_of(frame_size)
        return rows + rows // 4, columns


BackboneConfig = FactorisedConv | FullConv | FrameConv | StridedConv | TwoLevelConv
