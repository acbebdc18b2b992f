"""What users hand in, on its way in: arrays, tensors and lists as tensors, and seeds."""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqvideo.errors import InputError, whole

LARGEST_SEED = 2**64 - 1
"""Seeds are 64 bits."""


def as_tensor(value: Any, what: str, expected: str) -> Tensor:
    """Numbers as a tensor: a tensor as it is, an array of any kind and layout, or a list of arrays, tensors or numbers.

    Args:
        value: what was given.
        what: its name in errors.
        expected: what it should be, in errors.

    Raises:
        InputError: no numbers, or not of one shape.
    """
    if isinstance(value, Tensor) and not value.is_complex():
        return value
    try:
        # By itself, because numpy takes no tensors from a GPU.
        if isinstance(value, list | tuple) and value and all(isinstance(part, Tensor) for part in value):
            return torch.stack(tuple(value))
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what}: {error}; expected {expected}") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"{what}: found {reprlib.repr(value)} of type {array.dtype}, expected {expected}")
    wide = array.dtype.kind == "f" and array.dtype.itemsize > 8
    kind = np.float64 if wide else array.dtype.newbyteorder("=")
    # A copy where PyTorch would refuse memory that runs backwards, or warn of what cannot be written to.
    copy = min(array.strides, default=0) < 0 or not array.flags.writeable
    return torch.from_numpy(np.array(array, kind, copy=copy or None))


def checked_seed(seed: object, name: str = "seed", least: int = 0) -> int:
    """A seed as a Python int; InputError unless it is a whole number of 64 bits."""
    return whole(seed, name, least, LARGEST_SEED)
