"""Finite scalar quantization: a product of a few rounded dimensions, with no codebook at all."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from vqvideo.models.precision import single
from vqvideo.models.quantizers.base import Quantized, fp32, straight_through
from vqvideo.models.quantizers.config import FSQConfig
from vqvideo.models.quantizers.whitening import WhitenedQuantizer


class FSQ(WhitenedQuantizer):
    """Bounds each dimension with tanh and rounds it to one of its levels."""

    half_range: Tensor
    offset: Tensor
    levels: Tensor
    shift: Tensor
    basis: Tensor

    def __init__(self, cfg: FSQConfig) -> None:
        levels = torch.tensor(cfg.levels)
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        shift = torch.atanh(offset / half)
        # Two levels meet at -shift: latents around 0 would have to go nearly four standard deviations for the lower.
        super().__init__(torch.where(levels == 2, -shift, 0.0), whiten=cfg.whiten)
        self.cfg, self.codebook_size = cfg, prod(cfg.levels)
        basis = torch.tensor([prod(cfg.levels[:i]) for i in range(self.dim)])
        self.register_buffer("half_range", half, persistent=False)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("levels", levels, persistent=False)

    def forward(self, z: Tensor) -> Quantized:
        with fp32(z):
            bounded = self._bound(self.observed(z))
            digits = bounded.detach().round()
            values = straight_through(bounded, digits) / (self.levels // 2)
            return Quantized(values, self._combine(digits), values.new_zeros(()))

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        with fp32(z):
            return self._combine(self._bound(self.whitening(single(z))).round())

    def decode(self, indices: Tensor) -> Tensor:
        digits = indices[..., None] // self.basis % self.levels
        return (digits - self.levels // 2).to(self.half_range) / (self.levels // 2)

    def project(self, z: Tensor) -> Tensor:
        return self._bound(self.whitening(z)) / (self.levels // 2)

    def _bound(self, z: Tensor) -> Tensor:
        """Equation of section 3 of the paper; even numbers of levels are shifted by half a step."""
        return torch.tanh(z + self.shift) * self.half_range - self.offset

    def _combine(self, digits: Tensor) -> Tensor:
        # Each digit becomes an integer before they are combined: sums in half precision would round.
        return ((digits.long() + self.levels // 2) * self.basis).sum(dim=-1)
