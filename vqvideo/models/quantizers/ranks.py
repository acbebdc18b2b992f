"""What the ranks of a data-parallel training say to each other. In a single process nothing, at no cost.

What sums, takes a mean or broadcasts is a collective: all ranks call it at the same place, with tensors of one shape.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def several_ranks() -> bool:
    """Whether there is anybody to talk to."""
    return dist.is_available() and dist.is_initialized()


def sum_over_ranks(*tensors: Tensor) -> None:
    """Adds up tensors of one type over all ranks, in place and in one message."""
    if several_ranks():
        total = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(total)
        for tensor, part in zip(tensors, total.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


def rows_over_ranks(x: Tensor) -> int:
    """Rows of the equally long (n, d) of all ranks together."""
    return len(x) * (dist.get_world_size() if several_ranks() else 1)


def share_of_rows(x: Tensor, index: Tensor) -> Tensor:
    """This rank's share of the rows (r,) `index` of the equally long (n, d) of all ranks, in rank order: 0 where a row
    is another rank's, so that the sum over ranks is all of them.
    """
    if not several_ranks():
        return x[index]
    own = index - dist.get_rank() * len(x)
    here = (own >= 0) & (own < len(x))
    return torch.where(here[:, None], x[own.clamp(0, len(x) - 1)], 0.0)


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
