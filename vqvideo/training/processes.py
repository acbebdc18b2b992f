"""What the processes of a training agree on: all of them stop, or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from vqvideo.errors import InputError

if TYPE_CHECKING:
    from accelerate import Accelerator


def ranks_where(seen: bool, device: torch.device) -> list[int]:
    """The ranks where something was seen, the same list on every rank. Collective."""
    if not (dist.is_available() and dist.is_initialized()):
        return [0] if seen else []
    flags = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=device)
    flags[dist.get_rank()] = int(seen)
    dist.all_reduce(flags)
    return flags.nonzero().flatten().tolist()


def on_main_process(action: Callable[[], None], accelerator: Accelerator) -> None:
    """Does something on the main process while the others wait. Collective.

    Raises:
        InputError: what the action raised; the other processes end with it, and do not wait for ever.
    """
    error: InputError | None = None
    if accelerator.is_main_process:
        try:
            action()
        except InputError as found:
            error = found
    if ranks_where(error is not None, accelerator.device):
        raise error or InputError("the main process stopped; its message says why")


def refuse_disagreement(value: int, accelerator: Accelerator, what: str) -> None:
    """Raises InputError on every rank if ranks hold different values: they look at different files. Collective."""
    if accelerator.num_processes == 1:
        return
    values = torch.zeros(accelerator.num_processes, dtype=torch.int64, device=accelerator.device)
    values[accelerator.process_index] = value
    dist.all_reduce(values)
    if len(set(values.tolist())) > 1:
        raise InputError(f"the processes disagree about {what}: {values.tolist()}. Do all see the same folder?")
