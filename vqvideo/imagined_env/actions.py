"""Batches of native actions, as Gymnasium hands them to a vector environment, to flat ones on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqvideo.errors import InputError
from vqvideo.imagined_env.rows import Rows
from vqvideo.models.device import has_float64
from vqvideo.models.given import as_tensor
from vqvideo.spaces import ActionSpace, Leaf, Limits


class NativeActions:
    """Reads the actions of a batch.

    Args:
        space: of one action.
        count: n, how many there are in a batch.
        device: where flat ones go.
    """

    def __init__(self, space: ActionSpace, count: int, device: torch.device) -> None:
        self.space, self.count, self.device = space, count, device
        low, high = (np.array([getattr(column, end) for column in space.columns]) for end in ("low", "high"))
        # Looked at in double precision: on the host where the device has none.
        where = device if has_float64(device) else torch.device("cpu")
        self._limits = Limits(*(torch.as_tensor(limit, device=where) for limit in space.limits))
        self._valid = torch.as_tensor(np.zeros(space.size).clip(low, high), dtype=torch.float32, device=device)

    def flat(self, actions: Any, going: Rows) -> Tensor:
        """Flat actions (n, a) float32 on the device.

        Tensors stay where they are: to look whether they are in the space waits for the device once at most.

        Args:
            actions: an array, a tensor or a list (n, ...), or a nest of them.
            going: rows whose actions count; others may hold any number, and get a valid action.

        Raises:
            InputError: too many or too few actions, another structure or type, or an action that is not in the space:
                names the env, the value and the space.
        """
        pairs = zip(self.space.leaves, self.space.parts(actions), strict=True)
        # An empty nest of spaces has no part.
        parts = [self._columns(leaf, part) for leaf, part in pairs] or [torch.zeros(self.count, 0)]
        flat = torch.cat([part.to(parts[0].device) for part in parts], dim=1)
        if not self._hold(flat, going):
            for i in np.flatnonzero(going.host):
                self.space.validate(flat[i].cpu().numpy(), f"env {i}: action")
        return torch.where(going.mask[:, None], flat.float().to(self.device), self._valid)

    def _columns(self, leaf: Leaf, part: Any) -> Tensor:
        """A leaf's part of all actions as its columns, (n, columns) float64."""
        at = f" (leaf {leaf.name!r})" if leaf.name else ""
        values = as_tensor(part, f"actions{at}", f"{self.count} of {leaf.space}")
        kind = "f" if values.is_floating_point() else "i"
        if tuple(values.shape) != (self.count, *leaf.space.shape) or kind not in leaf.number_kinds:
            raise InputError(
                f"actions{at}: found {part!r:.100}, {values.dtype} of shape {tuple(values.shape)}, expected one of "
                f"{leaf.space} for each of {self.count} envs"
            )
        columns = values.detach()
        return (columns if has_float64(columns.device) else columns.cpu()).double().reshape(self.count, -1)

    def _hold(self, flat: Tensor, going: Rows) -> bool:
        """Whether all actions that count are in the space."""
        if flat.device.type == "cpu":
            return bool(self.space.limits.hold(flat.numpy())[going.host].all())
        return not going.any() or bool((self._limits.hold(flat).all(dim=1) | ~going.mask).all())


def in_numpy(actions: Any) -> Any:
    """The same nest of actions with arrays in place of tensors, on whatever device they are."""
    if isinstance(actions, Tensor):
        values = actions.detach().cpu()
        # In double precision, which holds them all: numpy has no bfloat16.
        return (values.double() if values.is_floating_point() else values).numpy()
    if isinstance(actions, Mapping):
        return {name: in_numpy(part) for name, part in actions.items()}
    return type(actions)(map(in_numpy, actions)) if type(actions) in (tuple, list) else actions
