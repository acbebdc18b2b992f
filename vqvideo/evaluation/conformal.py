"""Thresholds that normal data pass rarely, at a rate that is chosen (split conformal prediction, Vovk et al. 2005)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vqvideo.errors import InputError


def threshold(normal: NDArray[np.float64], rate: float) -> float:
    """The least score such that another score of the same kind is larger in at most a share `rate` of cases.

    It is the ceil((n + 1) (1 - rate))-th smallest of n normal scores: exact, in expectation over the normal ones, if
    all can be exchanged for each other. Steps of an episode resemble each other, so take many episodes.

    Args:
        normal: (n,) scores of what is normal.
        rate: of false alarms, between 0 and 1.

    Raises:
        InputError: too few scores for so small a rate.
    """
    if not 0 < rate < 1:
        raise InputError(f"a rate of false alarms of {rate}, expected between 0 and 1")
    place = math.ceil((len(normal) + 1) * (1 - rate))
    if place > len(normal):
        raise InputError(
            f"{len(normal)} normal steps are too few for {rate:g} false alarms a step: expected at least "
            f"{math.ceil(1 / rate) - 1}, or a higher rate"
        )
    return float(np.sort(normal)[place - 1])
