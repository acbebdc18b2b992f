"""Lookup-free quantizers: every latent dimension is one bit, and no code vector is ever stored."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvideo.errors import InputError
from vqvideo.quantizers.base import Quantized, Quantizer, fp32, mean_over_ranks, straight_through


@dataclass(frozen=True)
class BitConfig:
    """What the bit quantizers share."""

    bits_per_token: int = 10
    """Number of latent dimensions; k = 2 ** bits."""
    commitment: float = 0.25
    """Weight of the commitment loss, a mean over all elements."""
    entropy: float = 0.1
    """Weight of the entropy term: each latent sure of its bits, each bit used evenly over the batch."""
    inverse_temperature: float = 10.0
    """Sharpness of the soft assignment in the entropy term."""

    def __post_init__(self) -> None:
        if not 1 <= self.bits_per_token <= 24:
            raise InputError(f"quantizer.bits_per_token is {self.bits_per_token}, expected 1 to 24")


class BitQuantizer(Quantizer):
    """Rounds each dimension to one of two values of equal size and opposite sign."""

    places: Tensor

    def __init__(self, cfg: BitConfig) -> None:
        super().__init__()
        self.cfg, self.dim, self.codebook_size = cfg, cfg.bits_per_token, 2**cfg.bits_per_token
        self.register_buffer("places", 2 ** torch.arange(self.dim), persistent=False)

    @property
    @abstractmethod
    def size(self) -> float:
        """Absolute value of every component of a code vector."""

    @abstractmethod
    def bound(self, z: Tensor) -> Tensor:
        """The latents as they are compared with the code vectors."""

    def forward(self, z: Tensor) -> Quantized:
        with fp32(z):
            z = self.bound(z.float())
            q = torch.where(z > 0, self.size, -self.size)
            loss = self.cfg.commitment * F.mse_loss(z, q) + self.cfg.entropy * self.entropy_loss(z)
            return Quantized(straight_through(z, q), self._combine(z), loss)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        with fp32(z):
            return self._combine(self.bound(z.float()))

    def decode(self, indices: Tensor) -> Tensor:
        bits = (indices[..., None] & self.places) > 0
        return torch.where(bits, self.size, -self.size)

    def entropy_loss(self, z: Tensor) -> Tensor:
        """Mean entropy of a latent's bits minus the entropy of the batch's mean bits, in nats per token.

        Softmax over all codes of -|z - c|^2 / temperature is a product over the dimensions, so the entropy of a latent
        is exactly the sum over its bits. The entropy of the mean code distribution is taken over bits as well (Zhao
        et al. 2024, arXiv:2406.07548, section 3.2), an upper bound that needs no table of 2 ** d codes. The mean goes
        over all ranks: bits that are even within no rank can still be even over all.
        """
        logits = 4 * self.cfg.inverse_temperature * self.size * z.reshape(-1, self.dim)
        own = _bit_entropy(logits.sigmoid()).sum(dim=-1).mean()
        overall = _bit_entropy(mean_over_ranks(logits.sigmoid().mean(dim=0))).sum()
        return own - overall

    def _combine(self, z: Tensor) -> Tensor:
        return ((z > 0).long() * self.places).sum(dim=-1)


def _bit_entropy(p: Tensor) -> Tensor:
    p = p.clamp(1e-6, 1 - 1e-6)
    return -(p * p.log() + (1 - p) * (1 - p).log())


@dataclass(frozen=True)
class LFQConfig(BitConfig):
    """Lookup-free quantization (Yu et al. 2023, MAGVIT-v2, arXiv:2310.05737): the sign of each dimension."""

    def build(self) -> LFQ:
        return LFQ(self)


class LFQ(BitQuantizer):
    """Code vectors have components +1 and -1."""

    @property
    def size(self) -> float:
        return 1.0

    def bound(self, z: Tensor) -> Tensor:
        return z


@dataclass(frozen=True)
class BSQConfig(BitConfig):
    """Binary spherical quantization (Zhao et al. 2024, arXiv:2406.07548): signs of latents on the unit sphere."""

    def build(self) -> BSQ:
        return BSQ(self)


class BSQ(BitQuantizer):
    """Latents and code vectors have length 1, so the error of a latent is bounded."""

    @property
    def size(self) -> float:
        return self.dim**-0.5

    def bound(self, z: Tensor) -> Tensor:
        return F.normalize(z, dim=-1, eps=1e-6)
