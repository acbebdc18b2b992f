"""Lookup-free quantizers: every latent dimension is one bit, and no code vector is ever stored."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvideo.errors import InputError
from vqvideo.quantizers.base import Quantized, Quantizer, fp32, straight_through
from vqvideo.quantizers.ranks import mean_over_ranks


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
        self.register_buffer("places", 2 ** torch.arange(self.dim).flip(0), persistent=False)

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
        """Mean entropy of the soft code of a latent minus the entropy of the mean soft code, in nats per token.

        The soft code is the softmax over all codes of -|z - c|^2 times the inverse temperature. It is a product over
        the dimensions, so its entropy is exactly the sum over the bits, and no table of codes is needed.
        """
        ones = (4 * self.cfg.inverse_temperature * self.size * z.reshape(-1, self.dim)).sigmoid()
        return _bit_entropy(ones).sum(dim=-1).mean() - self.entropy_of_use(ones)

    @abstractmethod
    def entropy_of_use(self, ones: Tensor) -> Tensor:
        """Entropy in nats of the mean soft code over batch and ranks. `ones`: probabilities (n, d) of set bits.

        Over all ranks, since codes that no rank uses evenly can still be used evenly by all.
        """

    def _combine(self, z: Tensor) -> Tensor:
        return ((z > 0).long() * self.places).sum(dim=-1)


def _bit_entropy(p: Tensor) -> Tensor:
    p = p.clamp(1e-6, 1 - 1e-6)
    return -(p * p.log() + (1 - p) * (1 - p).log())


def _joint(ones: Tensor) -> Tensor:
    """Probabilities (n, 2 ** m) of all values of m independent bits with probabilities (n, m) of being set."""
    p = ones.new_ones(len(ones), 1)
    for bit in ones.unbind(dim=1):
        p = torch.cat([p * (1 - bit[:, None]), p * bit[:, None]], dim=1)
    return p


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

    def entropy_of_use(self, ones: Tensor) -> Tensor:
        """Exact. The mean of a product of two halves of the bits is one matrix product of (n, 2 ** (d / 2)) tables, so
        the (n, 2 ** d) table of all latents and codes never exists.
        """
        first, second = _joint(ones[:, : self.dim // 2]), _joint(ones[:, self.dim // 2 :])
        p = mean_over_ranks(first.T @ second / len(ones))
        return -(p * p.clamp(min=1e-20).log()).sum()


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

    def entropy_of_use(self, ones: Tensor) -> Tensor:
        """Sum over the bits (section 3.2 of the paper): an upper bound of the exact one, at the cost of d numbers."""
        return _bit_entropy(mean_over_ranks(ones.mean(dim=0))).sum()
