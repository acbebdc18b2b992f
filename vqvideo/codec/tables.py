"""Tables of whole numbers out of logits: equal on every machine, where those differ in their last digits.

Logits in double precision differ by some 1e-13 between instruction sets, threads and batches. Rounded to sixteenths
they are equal, but where one lies as near as that to the middle between two; the encoder looks for those, and does
without the model there. Probabilities are then read off a table of whole numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqvideo.errors import InputError

GRID = 16
"""Steps of a logit per nat. Finer ones cost nothing in size, but come nearer to each other."""
MARGIN = 1e-8
"""How near, in steps, a logit may come to the middle between two: 10,000 times what machines differ by."""
_TOP = 2**20
"""Weight of the likeliest code; the least is 1."""
_WEIGHTS = torch.tensor([max(1, round(_TOP * float(np.exp(-step / GRID)))) for step in range(GRID * 14 + 1)]).double()


class Tables(NamedTuple):
    """How likely each code is, for some tokens."""

    weights: NDArray[np.float64]
    """(m, k): whole numbers."""
    certain: bool
    """Whether every other machine will find the same."""


def tables(logits: Tensor) -> Tables:
    """The tables of logits (..., m, k) float64, flattened to (m, k).

    Raises:
        InputError: they are not finite.
    """
    scaled = logits.detach().to("cpu", torch.float64).reshape(-1, logits.shape[-1]) * GRID
    if not scaled.isfinite().all():
        raise InputError("the prior gives logits that are not finite: it cannot be coded with")
    rounded = scaled.round()
    certain = bool(((scaled - rounded).abs() < 0.5 - MARGIN).all())
    below = (rounded.amax(dim=-1, keepdim=True) - rounded).clamp(max=len(_WEIGHTS) - 1).long()
    return Tables(_WEIGHTS[below].numpy(), certain)
