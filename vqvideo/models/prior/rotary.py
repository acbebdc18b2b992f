"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864), of places and of moments."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vqvideo.models.device import sent

TIME_BASE = 100.0
"""Base of the angles along time."""


def rotary_angles(positions: Tensor, dim: int, base: float) -> Tensor:
    """Angles of positions: (...,) -> (..., dim / 2)."""
    return positions.float()[..., None] * _rates(dim, base, positions.device)


def clock_angles(clock: int, dim: int, base: float, device: torch.device) -> Tensor:
    """`rotary_angles` of one step (dim / 2,), reduced to one turn in double precision: the millionth step of a dream is
    as exact as the first.
    """
    rates = _rates(dim, base, torch.device("cpu"))
    return sent(torch.remainder(clock * rates.double(), 2 * math.pi).float(), device)


def _rates(dim: int, base: float, device: torch.device) -> Tensor:
    """Radians per position of each pair of features, (dim / 2,)."""
    # In double precision, whose last digits differ between kinds of processors, and rounded to what is the same on all.
    # Not every GPU has it.
    precise = torch.float64 if device.type == "cpu" else torch.float32
    return (base ** (-torch.arange(0, dim, 2, dtype=precise, device=device) / dim)).float()


class Rotation(NamedTuple):
    """Turns pairs of features, the first half of (..., e) with the second half, by angles of their own."""

    cos: Tensor
    """(..., e): the cosine of the angle of each feature's pair."""
    sin: Tensor
    """(..., e): its sine, with the sign by which the other feature of the pair comes in."""

    @classmethod
    def by(cls, angles: Tensor) -> Rotation:
        """By angles (..., e / 2)."""
        # As the rates: the same numbers on all kinds of processors. Not every GPU has double precision.
        wide = angles.double() if angles.device.type == "cpu" else angles
        cos, sin = (turned.to(angles.dtype) for turned in (wide.cos(), wide.sin()))
        return cls(torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1))

    def __call__(self, x: Tensor) -> Tensor:
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), sin)
