"""Lookup-free quantizers: every latent dimension is one bit, and no code vector is ever stored."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvideo.models.precision import single
from vqvideo.models.quantizers.base import Quantized, fp32, straight_through
from vqvideo.models.quantizers.config import BitConfig
from vqvideo.models.quantizers.ranks import mean_over_ranks
from vqvideo.models.quantizers.whitening import WhitenedQuantizer

_GROUP = 16
"""Bits whose joint use is measured exactly; the cost doubles with every one."""


class BitQuantizer(WhitenedQuantizer):
    """Rounds each dimension to one of two values of equal size and opposite sign."""

    places: Tensor

    def __init__(self, cfg: BitConfig) -> None:
        super().__init__(torch.zeros(cfg.bits_per_token), whiten=cfg.whiten)
        self.cfg, self.codebook_size = cfg, 2**cfg.bits_per_token
        self.register_buffer("places", 2 ** torch.arange(self.dim).flip(0), persistent=False)

    @property
    @abstractmethod
    def size(self) -> float:
        """Absolute value of every component of a code vector."""

    @abstractmethod
    def bound(self, z: Tensor) -> Tensor:
        """Whitened latents as they are compared with the code vectors."""

    def forward(self, z: Tensor) -> Quantized:
        with fp32(z):
            # Where nothing is learnt the ranks need not be in step, so nothing is asked of the others.
            together = self.learns_from(z)
            z = self.bound(self.observed(z))
            q = torch.where(z > 0, self.size, -self.size)
            loss = self.cfg.commitment * F.mse_loss(z, q) + self.cfg.entropy * self.entropy_loss(z, together=together)
            return Quantized(straight_through(z, q), self._combine(z), loss)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        with fp32(z):
            return self._combine(self.project(single(z)))

    def project(self, z: Tensor) -> Tensor:
        return self.bound(self.whitening(z))

    def decode(self, indices: Tensor) -> Tensor:
        bits = (indices[..., None] & self.places) > 0
        return torch.where(bits, self.size, -self.size)

    def entropy_loss(self, z: Tensor, *, together: bool = False) -> Tensor:
        """Mean entropy of the soft code of a latent minus the entropy of the mean soft code, in nats per token.

        The soft code is the softmax over all codes of -|z - c|^2 times the inverse temperature. It is a product over
        the dimensions, so its entropy is exactly the sum over the bits, and no table of codes is needed.
        """
        ones = (4 * self.cfg.inverse_temperature * self.size * z.reshape(-1, self.dim)).sigmoid()
        return _bit_entropy(ones).sum(dim=-1).mean() - self.entropy_of_use(ones, together=together)

    def entropy_of_use(self, ones: Tensor, *, together: bool = False) -> Tensor:
        """Entropy in nats of the mean soft code over the batch. `ones`: probabilities (n, d) of set bits.

        With `together` over all ranks, since codes that no rank uses evenly can still be used evenly by all. Exact up
        to 16 bits, and a sum over groups of 16 beyond. The sum over single bits that is published for BSQ (section 3.2)
        is largest, too, when all bits are copies of one that is set half of the time: two codes in use.
        """
        return torch.stack([_joint_entropy(group, together=together) for group in ones.split(_GROUP, dim=1)]).sum()

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


def _joint_entropy(ones: Tensor, *, together: bool) -> Tensor:
    """Entropy of the mean over n (and ranks) of the joint distribution of m bits with probabilities (n, m).

    The mean of a product of two halves of the bits is one matrix product of (n, 2 ** (m / 2)) tables, so the
    (n, 2 ** m) table of all latents and codes never exists.
    """
    half = ones.shape[1] // 2
    p = _joint(ones[:, :half]).T @ _joint(ones[:, half:]) / len(ones)
    p = mean_over_ranks(p) if together else p
    return -(p * p.clamp(min=1e-20).log()).sum()


class LFQ(BitQuantizer):
    """Code vectors have components +1 and -1."""

    @property
    def size(self) -> float:
        return 1.0

    def bound(self, z: Tensor) -> Tensor:
        return z


class BSQ(BitQuantizer):
    """Latents and code vectors have length 1, so the error of a latent is bounded."""

    @property
    def size(self) -> float:
        return self.dim**-0.5

    def bound(self, z: Tensor) -> Tensor:
        return F.normalize(z, dim=-1, eps=1e-6)
