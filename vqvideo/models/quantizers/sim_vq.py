"""SimVQ: a fixed random codebook behind one learnt linear map (Zhu et al. 2024, arXiv:2411.02038)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqvideo.models.precision import single
from vqvideo.models.quantizers.base import LATENTS_PER_CODE
from vqvideo.models.quantizers.config import SimVQConfig
from vqvideo.models.quantizers.gradient_vq import LearntVQ
from vqvideo.models.quantizers.ranks import broadcast_from_first

_BASE_SIZE = 4.0
"""Standard deviation of the fixed codebook. Adam moves the map by the learning rate whatever the gradient, and so the
codes by that times their size: at size 1 they cannot keep up with the encoder, and few of them stay in use."""


class SimVQ(LearntVQ):
    """Codes are W e + b with e fixed, W and b learnt, so no code can be left behind alone."""

    frozen: Tensor

    def __init__(self, cfg: SimVQConfig) -> None:
        super().__init__(cfg)
        self.register_buffer("frozen", _BASE_SIZE * self._random_codes())
        self.map = nn.Linear(cfg.dim, cfg.dim)
        self._start(torch.ones(cfg.dim), torch.zeros(cfg.dim))

    @property
    def latents_to_start(self) -> int:
        return LATENTS_PER_CODE * self.dim**2

    def codes(self) -> Tensor:
        return self.map(self.frozen)

    def no_decay(self) -> list[Tensor]:
        """Decay would draw all codes to one point."""
        return [self.map.weight]

    @torch.no_grad()
    def initialize(self, z: Tensor) -> None:
        """Gives the codes mean and spread of the first latents. Those of rank 0 decide."""
        z = single(z)
        self._start(
            broadcast_from_first(z.std(dim=0).clamp(min=1e-3).contiguous()),
            broadcast_from_first(z.mean(dim=0).contiguous()),
        )

    @torch.no_grad()
    def _start(self, spread: Tensor, mean: Tensor) -> None:
        self.map.weight.copy_(torch.diag(spread / _BASE_SIZE))
        self.map.bias.copy_(mean)
