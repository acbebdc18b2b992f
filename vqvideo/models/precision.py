"""What keeps single precision where the rest of a model is taken to a lower one, as by `model.to(torch.bfloat16)`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

Conversion = Callable[[Tensor], Tensor]
"""What `nn.Module` does to each of its tensors to take them to another type or device."""


def single(x: Tensor) -> Tensor:
    """Floating-point numbers in single precision, or in double precision if they are in that."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def at_least_single(convert: Conversion, x: Tensor) -> Tensor:
    """`convert(x)`, but to single precision where that would be half."""
    converted = convert(x)
    lower = converted.is_floating_point() and torch.finfo(converted.dtype).bits < 32
    return x.to(converted.device, torch.float32) if lower else converted


class SinglePrecision(nn.Module):
    """A module whose weights and tables, and those of all modules in it, keep at least single precision."""

    def _apply(self, fn: Conversion, recurse: bool = True) -> Self:
        return super()._apply(partial(at_least_single, fn), recurse)


class SinglePrecisionBuffers(nn.Module):
    """A module whose own buffers keep at least single precision, while its weights are rounded: statistics would
    overflow in fp16, and angles, bins and code vectors come too near to each other in bf16.
    """

    def _apply(self, fn: Conversion, recurse: bool = True) -> Self:
        kept = {id(buffer) for buffer in self._buffers.values()}
        return super()._apply(lambda x: at_least_single(fn, x) if id(x) in kept else fn(x), recurse)
