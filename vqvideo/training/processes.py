"""What the processes of a training agree on: all of them stop, or none; and nobody waits for ever."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch
import torch.distributed as dist

from vqvideo.errors import InputError

T = TypeVar("T")
_PATIENCE = timedelta(days=30)
"""One rank may record, encode or validate for as long as it takes."""


def gathered(*values: float) -> list[list[float]]:
    """The values of every rank, in rank order, on every rank. Collective; it waits for no accelerator."""
    if not (dist.is_available() and dist.is_initialized()):
        return [list(values)]
    mine = torch.tensor(values, dtype=torch.float64)
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, mine, group=_patient_group(dist.group.WORLD))
    return [rank.tolist() for rank in everyone]


@cache
def _patient_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    """All ranks of `world`, on the CPU. Its collectives outlast what NCCL takes for a hanging rank after ten minutes,
    and end at once where a rank is gone.
    """
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    # Its threads would abort an interpreter that ends while they are there.
    atexit.register(_part)
    return group  # type: ignore[return-value]


def _part() -> None:
    """Ends all groups of this process, if nobody has done so."""
    _patient_group.cache_clear()
    if dist.is_initialized():
        dist.destroy_process_group()


def ranks_where(seen: bool) -> list[int]:
    """The ranks where something was seen, the same list on every rank. Collective."""
    return [rank for rank, (flag,) in enumerate(gathered(float(seen))) if flag]


def together(action: Callable[[], T]) -> T:
    """Does something on every rank; returns when all are done, however long one of them takes. Collective.

    Raises:
        InputError: what the action raised; the other ranks end with it, and do not wait for ever.
    """
    error: InputError | None = None
    try:
        result = action()
    except InputError as found:
        error = found
    if ranks := ranks_where(error is not None):
        raise error or InputError(f"rank {', '.join(map(str, ranks))} stopped; its message says why")
    return result


def on_main_process(action: Callable[[], None], *, of_each_machine: bool = False) -> None:
    """Does something on the main process, or on the first one of each machine, while the others wait. Collective; see
    `together`.
    """
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    first = int(os.environ.get("LOCAL_RANK", rank)) == 0 if of_each_machine else rank == 0
    together(action if first else lambda: None)


def refuse_disagreement(value: int, what: str) -> None:
    """Raises InputError on every rank if ranks hold different values: they look at different files. Collective."""
    values = [int(value) for (value,) in gathered(value)]
    if len(set(values)) > 1:
        raise InputError(f"the processes disagree about {what}: {values}. Do all see the same folder?")
