"""What the ranks of a data-parallel training say to each other. In a single process nothing, at no cost.

Every function but `several_ranks` is a collective: all ranks call it at the same place, with tensors of one shape.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def several_ranks() -> bool:
    """Whether there is anybody to talk to."""
    return dist.is_available() and dist.is_initialized()


def sum_over_ranks(*tensors: Tensor) -> None:
    """Adds up tensors over all ranks, in place."""
    if several_ranks():
        for tensor in tensors:
            dist.all_reduce(tensor)


def gather_from_ranks(x: Tensor) -> Tensor:
    """Concatenates the equally long (n, d) of all ranks, in rank order, on every rank."""
    if not several_ranks():
        return x
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of x over all ranks. The gradient is that of this rank's share, which the averaging of the ranks'
    gradients in data-parallel training turns into the gradient of the mean.
    """
    if not several_ranks():
        return x
    total = x.detach().clone()
    dist.all_reduce(total)
    return x + (total / dist.get_world_size() - x).detach()


def broadcast_from_first(x: Tensor) -> Tensor:
    """Rank 0's x on every rank, in place."""
    if several_ranks():
        dist.broadcast(x, src=0)
    return x
