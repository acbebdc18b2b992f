"""What differs between devices: how they are sent something without waiting, and whether they know float64."""

from __future__ import annotations

import torch
from torch import Tensor

WITHOUT_FLOAT64 = {"mps"}
"""Kinds of devices that have no such numbers: the GPUs of Apple."""


def has_float64(device: torch.device) -> bool:
    """Whether there are numbers of double precision on `device`."""
    return device.type not in WITHOUT_FLOAT64


def sent(x: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on `device`. From memory that is not pinned, a GPU would finish all that it was asked for
    before it takes anything.
    """
    return (x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True)
