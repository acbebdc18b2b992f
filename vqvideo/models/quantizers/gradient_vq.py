"""The original vector quantizer: Neural Discrete Representation Learning (van den Oord et al. 2017, 1711.00937)."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvideo.models.precision import single
from vqvideo.models.quantizers.base import (
    LATENTS_PER_CODE,
    Quantized,
    Quantizer,
    enough_latents,
    fp32,
    k_means,
    nearest,
    pass_gradient,
)
from vqvideo.models.quantizers.config import GradientVQConfig
from vqvideo.models.quantizers.ranks import broadcast_from_first


class LearntVQ(Quantizer):
    """Codebook loss |sg[z] - e|^2 moves the codes, commitment loss beta |z - sg[e]|^2 the encoder."""

    def __init__(self, cfg: GradientVQConfig) -> None:
        super().__init__()
        self.cfg, self.codebook_size, self.dim = cfg, cfg.codebook_size, cfg.dim

    @abstractmethod
    def codes(self) -> Tensor:
        """All code vectors (k, d), with their gradient."""

    def forward(self, z: Tensor) -> Quantized:
        with fp32(z):
            z = single(z)
            indices = self.encode(z)
            q = F.embedding(indices, self.codes())
            loss = F.mse_loss(q, z.detach()) + self.cfg.commitment * F.mse_loss(z, q.detach())
            return Quantized(pass_gradient(z, q, self.cfg.gradient), indices, loss)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        with fp32(z):
            return nearest(single(z).reshape(-1, self.dim), self.codes()).reshape(z.shape[:-1])

    def decode(self, indices: Tensor) -> Tensor:
        with fp32(indices):
            return F.embedding(indices, self.codes())

    def _random_codes(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.cfg.seed)
        return torch.randn(self.codebook_size, self.dim, generator=generator)


class GradientVQ(LearntVQ):
    """The code vectors are parameters."""

    def __init__(self, cfg: GradientVQConfig) -> None:
        super().__init__(cfg)
        self.codebook = nn.Parameter(self._random_codes())

    @property
    def latents_to_start(self) -> int:
        return LATENTS_PER_CODE * self.codebook_size

    @property
    def least_latents(self) -> int:
        return self.codebook_size

    def codes(self) -> Tensor:
        return self.codebook

    def no_decay(self) -> list[nn.Parameter]:
        """Decay would draw the codes to the origin, the unused ones first."""
        return [self.codebook]

    @torch.no_grad()
    def initialize(self, z: Tensor) -> None:
        """K-means start. Every rank must pass the same latents; those of rank 0 decide."""
        enough_latents(z, self.least_latents)
        generator = torch.Generator().manual_seed(self.cfg.seed)
        self.codebook.copy_(broadcast_from_first(k_means(single(z), self.codebook_size, 10, generator)))
