"""Settings of the quantizers. Without torch: a class is loaded when it is built.

A new quantizer has its settings and its place in the union here, a class of the same name (less Config) in a file of
its own, and that file in the list of the package.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log2
from typing import TYPE_CHECKING, Literal, NoReturn

from vqvideo.errors import InputError
from vqvideo.models import class_of

if TYPE_CHECKING:
    from vqvideo.models.quantizers.base import Quantizer


Gradient = Literal["straight_through", "rotation"]
"""How a gradient passes a nearest-neighbour quantizer."""


class _Built:
    """Settings that can be built."""

    def build(self) -> Quantizer:
        """The quantizer with these settings."""
        return class_of(self, "quantizers")(self)


@dataclass(frozen=True)
class EMAVQConfig(_Built):
    """Nearest code vector, codebook kept as moving averages (van den Oord et al. 2017, appendix A.1)."""

    codebook_size: int = 1024
    """Number of codes k."""
    dim: int = 8
    """Width d of a code vector; small widths keep the whole codebook in use."""
    decay: float = 0.95
    """Decay of the moving averages, per optimizer step."""
    commitment: float = 0.25
    """Weight beta of the commitment loss, a mean over all elements."""
    revive_below: float = 0.2
    """A code used less than this share of the average use is replaced by a latent of the batch; 0 never."""
    revive_at_most: float = 0.05
    """Largest share of the codebook replaced in one step."""
    gradient: Gradient = "straight_through"
    """How the gradient passes the quantizer: straight_through or rotation."""
    seed: int = 0
    """Seed of k-means start and revival."""

    def __post_init__(self) -> None:
        if self.codebook_size < 2 or self.dim < 1:
            raise InputError(f"quantizer: codebook_size {self.codebook_size} and dim {self.dim}: too small")
        if not 0 <= self.decay < 1:
            raise InputError(f"quantizer.decay is {self.decay}, expected 0 <= decay < 1")
        if not 0 <= self.revive_at_most <= 1:
            raise InputError(f"quantizer.revive_at_most is {self.revive_at_most}, expected 0 .. 1")


@dataclass(frozen=True)
class CosineVQConfig(EMAVQConfig):
    """EMA vector quantizer on the unit sphere: the code of the largest cosine (Yu et al. 2021, arXiv:2110.04627)."""


@dataclass(frozen=True)
class GradientVQConfig(_Built):
    """Nearest code vector, codebook learnt by gradient: equation 3 of the paper."""

    codebook_size: int = 1024
    """Number of codes k."""
    dim: int = 8
    """Width d of a code vector."""
    commitment: float = 0.25
    """Weight beta of the commitment loss; the codebook loss has weight 1. Both are means over all elements."""
    gradient: Gradient = "straight_through"
    """How the gradient passes the quantizer: straight_through or rotation."""
    seed: int = 0
    """Seed of the start."""

    def __post_init__(self) -> None:
        if self.codebook_size < 2 or self.dim < 1:
            raise InputError(f"quantizer: codebook_size {self.codebook_size} and dim {self.dim}: too small")


@dataclass(frozen=True)
class SimVQConfig(GradientVQConfig):
    """Nearest code vector of a linearly mapped random codebook: every gradient moves every code."""


@dataclass(frozen=True)
class FSQConfig(_Built):
    """Finite scalar quantization (Mentzer et al. 2023, arXiv:2309.15505): no codebook to collapse."""

    levels: tuple[int, ...] = (8, 5, 5, 5)
    """Number of values of each latent dimension; k is their product, d their number."""
    whiten: bool = True
    """Keep the latents centred, uncorrelated and of unit size by moving averages; false: as they come, as published."""

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 2:
            raise InputError(f"quantizer.levels {self.levels}: expected a list of numbers of at least 2")


@dataclass(frozen=True)
class BitConfig(_Built):
    """What the bit quantizers share."""

    bits_per_token: int = 10
    """Number of latent dimensions; k = 2 ** bits."""
    commitment: float = 0.1
    """Weight of the commitment loss, a mean over all elements."""
    entropy: float = 0.02
    """Weight of the entropy term: each latent sure of its bits, each bit used evenly over the batch."""
    inverse_temperature: float = 10.0
    """Sharpness of the soft assignment in the entropy term."""
    whiten: bool = True
    """Keep the latents centred, uncorrelated and of unit size by moving averages; false: as they come, as published."""

    def __post_init__(self) -> None:
        if not 1 <= self.bits_per_token <= 24:
            raise InputError(f"quantizer.bits_per_token is {self.bits_per_token}, expected 1 to 24")


@dataclass(frozen=True)
class LFQConfig(BitConfig):
    """Lookup-free quantization (Yu et al. 2023, MAGVIT-v2, arXiv:2310.05737): the sign of each dimension."""

    commitment: float = 0.02
    """Weight of the commitment loss, a mean over all elements; little, since latents are not bounded here."""
    inverse_temperature: float = 1.0
    """Sharpness of the soft assignment in the entropy term: a latent of unit size is sure of its bit by 98 %."""


@dataclass(frozen=True)
class BSQConfig(BitConfig):
    """Binary spherical quantization (Zhao et al. 2024, arXiv:2406.07548): signs of latents on the unit sphere."""


@dataclass(frozen=True)
class ResidualVQConfig(_Built):
    """A few small codebooks, one after the other."""

    stages: int = 2
    """Number of codebooks."""
    stage: EMAVQConfig = field(default_factory=lambda: EMAVQConfig(codebook_size=32))
    """Every one of them; together they have codebook_size ** stages codes."""

    def __post_init__(self) -> None:
        # In logarithms: the number itself may have more digits than there is memory.
        if self.stages < 1 or self.stages * log2(self.stage.codebook_size) > 24:
            raise InputError(
                f"quantizer: {self.stages} stages of {self.stage.codebook_size} codes, expected at least one stage and "
                "at most 2^24 codes together"
            )


@dataclass(frozen=True)
class OutsideConfig:
    """A quantizer that the caller passes as a module; what a saved model remembers of it."""

    name: str
    """Qualified name of its class, or of the adapted module's class."""
    codebook_size: int
    """Number of codes k."""
    dim: int
    """Width d of the latents."""

    def build(self) -> NoReturn:
        raise InputError(
            f"the quantizer {self.name} is not one of vqvideo's: pass the module, VQVAE.from_pretrained(path, "
            "quantizer=module) or VQVAE(cfg, frame_size, quantizer=module)"
        )


BuiltInConfig = (
    EMAVQConfig | CosineVQConfig | GradientVQConfig | FSQConfig | LFQConfig | BSQConfig | SimVQConfig | ResidualVQConfig
)
"""The quantizers that can be built from their settings."""


QuantizerConfig = BuiltInConfig | OutsideConfig
"""What the settings of a tokenizer may say."""
