"""SimVQ: a fixed random codebook behind one learnt linear map (Zhu et al. 2024, arXiv:2411.02038)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvideo.errors import InputError
from vqvideo.quantizers.base import Gradient, Quantized, Quantizer, fp32, nearest, pass_gradient


@dataclass(frozen=True)
class SimVQConfig:
    """Nearest code vector of a linearly mapped random codebook: every gradient moves every code."""

    codebook_size: int = 1024
    """Number of codes k."""
    dim: int = 8
    """Width d of a code vector."""
    commitment: float = 0.25
    """Weight beta of the commitment loss; the codebook loss has weight 1. Both are means over all elements."""
    gradient: Gradient = "straight_through"
    """How the gradient passes the quantizer: straight_through or rotation."""
    seed: int = 0
    """Seed of the codebook."""

    def __post_init__(self) -> None:
        if self.codebook_size < 2 or self.dim < 1:
            raise InputError(f"quantizer: codebook_size {self.codebook_size} and dim {self.dim}: too small")

    def build(self) -> SimVQ:
        return SimVQ(self)


class SimVQ(Quantizer):
    """Codes are W e with e fixed and W learnt, so no code can be left behind alone."""

    frozen: Tensor

    def __init__(self, cfg: SimVQConfig) -> None:
        super().__init__()
        self.cfg, self.codebook_size, self.dim = cfg, cfg.codebook_size, cfg.dim
        generator = torch.Generator().manual_seed(cfg.seed)
        self.register_buffer("frozen", torch.randn(cfg.codebook_size, cfg.dim, generator=generator))
        self.map = nn.Linear(cfg.dim, cfg.dim, bias=True)
        nn.init.eye_(self.map.weight)
        nn.init.zeros_(self.map.bias)
        # Decay would draw all codes to one point.
        self.map.weight.no_decay = True  # type: ignore[attr-defined]

    def codes(self) -> Tensor:
        """All code vectors (k, d), with the gradient of the map."""
        return self.map(self.frozen)

    def forward(self, z: Tensor) -> Quantized:
        with fp32(z):
            z = z.float()
            indices = self.encode(z)
            q = F.embedding(indices, self.codes())
            loss = F.mse_loss(q, z.detach()) + self.cfg.commitment * F.mse_loss(z, q.detach())
            return Quantized(pass_gradient(z, q, self.cfg.gradient), indices, loss)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        with fp32(z):
            return nearest(z.float().reshape(-1, self.dim), self.codes()).reshape(z.shape[:-1])

    def decode(self, indices: Tensor) -> Tensor:
        with fp32(self.frozen):
            return F.embedding(indices, self.codes())

    @torch.no_grad()
    def initialize(self, z: Tensor) -> None:
        """Gives the codes mean and spread of the first latents, the same on every rank."""
        z = z.float()
        self.map.weight.copy_(torch.diag(z.std(dim=0).clamp(min=1e-3)))
        self.map.bias.copy_(z.mean(dim=0))
