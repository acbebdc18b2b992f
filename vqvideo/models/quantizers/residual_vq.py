"""Residual VQ: each stage quantizes what the stages before left over (SoundStream, arXiv:2107.03312)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqvideo.models.precision import single
from vqvideo.models.quantizers.base import Quantized, Quantizer, fp32, pass_gradient
from vqvideo.models.quantizers.config import ResidualVQConfig
from vqvideo.models.quantizers.ema_vq import EMAVQ


class ResidualVQ(Quantizer):
    """The code of a token is a number whose digits are the codes of the stages, the first stage lowest."""

    def __init__(self, cfg: ResidualVQConfig) -> None:
        super().__init__()
        self.cfg, self.dim = cfg, cfg.stage.dim
        self.base = cfg.stage.codebook_size
        self.codebook_size = self.base**cfg.stages
        self._stages = [EMAVQ(cfg.stage) for _ in range(cfg.stages)]
        self.stages = nn.ModuleList(self._stages)

    @property
    def latents_to_start(self) -> int:
        return max(stage.latents_to_start for stage in self._stages)

    @property
    def least_latents(self) -> int:
        return max(stage.least_latents for stage in self._stages)

    def forward(self, z: Tensor) -> Quantized:
        with fp32(z):
            z = single(z)
            parts: list[Quantized] = []
            for stage in self._stages:
                done = [part.values.detach() for part in parts]
                # Detached: a stage is fitted to what is left, and does not shape the stages before it.
                parts.append(stage(z - sum(done) if done else z))
            values = torch.stack([part.values.detach() for part in parts]).sum(dim=0)
            indices = self._combine([part.indices for part in parts])
            return Quantized(
                pass_gradient(z, values, self.cfg.stage.gradient),
                indices,
                torch.stack([part.loss for part in parts]).sum(),
            )

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        with fp32(z):
            digits, rest = [], single(z)
            for stage in self._stages:
                digits.append(stage.encode(rest))
                rest = rest - stage.decode(digits[-1])
            return self._combine(digits)

    def decode(self, indices: Tensor) -> Tensor:
        digits = (indices // self.base**number % self.base for number in range(self.cfg.stages))
        return torch.stack([stage.decode(d) for stage, d in zip(self._stages, digits, strict=True)]).sum(dim=0)

    @torch.no_grad()
    def initialize(self, z: Tensor) -> None:
        """K-means start of each stage on what the stages before left over."""
        rest = single(z)
        for stage in self._stages:
            stage.initialize(rest)
            rest = rest - stage.decode(stage.encode(rest))

    @torch.no_grad()
    def update(self) -> None:
        for stage in self._stages:
            stage.update()

    def _combine(self, digits: list[Tensor]) -> Tensor:
        return torch.stack([digit * self.base**number for number, digit in enumerate(digits)]).sum(dim=0)
