"""SimVQ: a fixed random codebook behind one learnt linear map (Zhu et al. 2024, arXiv:2411.02038)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqvideo.quantizers.base import LATENTS_PER_CODE
from vqvideo.quantizers.gradient_vq import GradientVQConfig, LearntVQ


@dataclass(frozen=True)
class SimVQConfig(GradientVQConfig):
    """Nearest code vector of a linearly mapped random codebook: every gradient moves every code."""

    def build(self) -> SimVQ:
        return SimVQ(self)


class SimVQ(LearntVQ):
    """Codes are W e + b with e fixed, W and b learnt, so no code can be left behind alone."""

    frozen: Tensor

    def __init__(self, cfg: SimVQConfig) -> None:
        super().__init__(cfg)
        self.register_buffer("frozen", self._random_codes())
        self.map = nn.Linear(cfg.dim, cfg.dim)
        nn.init.eye_(self.map.weight)
        nn.init.zeros_(self.map.bias)
        # Decay would draw all codes to one point.
        self.map.weight.no_decay = True  # type: ignore[attr-defined]

    @property
    def latents_to_start(self) -> int:
        return LATENTS_PER_CODE * self.dim**2

    def codes(self) -> Tensor:
        return self.map(self.frozen)

    @torch.no_grad()
    def initialize(self, z: Tensor) -> None:
        """Gives the codes mean and spread of the first latents, the same on every rank."""
        z = z.float()
        self.map.weight.copy_(torch.diag(z.std(dim=0).clamp(min=1e-3)))
        self.map.bias.copy_(z.mean(dim=0))
