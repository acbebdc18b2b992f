"""SimVQ: a fixed codebook behind one learnt linear map (Zhu et al. 2024, arXiv:2411.02038)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqvideo.quantizers.base import LATENTS_PER_CODE, enough_latents, k_means
from vqvideo.quantizers.gradient_vq import GradientVQConfig, LearntVQ
from vqvideo.quantizers.ranks import broadcast_from_first


@dataclass(frozen=True)
class SimVQConfig(GradientVQConfig):
    """Nearest code vector of a linearly mapped fixed codebook: every gradient moves every code."""

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
        return LATENTS_PER_CODE * self.codebook_size

    def codes(self) -> Tensor:
        return self.map(self.frozen)

    @torch.no_grad()
    def initialize(self, z: Tensor) -> None:
        """K-means of the first latents becomes the frozen codebook, behind the identity. Every rank must pass the same
        latents; those of rank 0 decide.
        """
        enough_latents(z, self.codebook_size)
        generator = torch.Generator().manual_seed(self.cfg.seed)
        self.frozen.copy_(broadcast_from_first(k_means(z.float(), self.codebook_size, 10, generator)))
        nn.init.eye_(self.map.weight)
        nn.init.zeros_(self.map.bias)
