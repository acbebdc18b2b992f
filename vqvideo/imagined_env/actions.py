"""Batches of native actions, as Gymnasium hands them to a vector environment, to flat ones on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.vector.utils import batch_space, iterate
from numpy.typing import NDArray
from torch import Tensor

from vqvideo.errors import InputError
from vqvideo.imagined_env.rows import Rows
from vqvideo.spaces import ActionSpace, Limits


class NativeActions:
    """Reads the actions of a batch.

    Args:
        space: of one action.
        count: n, how many there are in a batch.
        device: where flat ones go.
    """

    def __init__(self, space: ActionSpace, count: int, device: torch.device) -> None:
        self.space, self.count, self.device = space, count, device
        self._batched = batch_space(space.native(), count)
        low, high = (np.array([getattr(column, end) for column in space.columns]) for end in ("low", "high"))
        self._limits = Limits(*(torch.as_tensor(limit, device=device) for limit in space.limits))
        self._valid = torch.as_tensor(np.zeros(space.size).clip(low, high), device=device)

    def flat(self, actions: Any, going: Rows) -> Tensor:
        """Flat actions (n, a) float32 on the device.

        The usual case, good arrays or tensors, is checked in one go and tensors stay where they are: that waits for the
        device once at most. Only what is left is looked at row by row, to take lists and to say what is wrong.

        Args:
            actions: an array or a tensor (n, ...), or a nest of them.
            going: rows whose actions count; others may hold anything, and get a valid action.

        Raises:
            InputError: too many or too few actions, another structure or type, or an action that is not in the space:
                names the env, the value and the space.
        """
        flat = self._columns(actions)
        if flat is None or not self._holds(flat, going):
            flat = torch.from_numpy(self._row_by_row(in_numpy(actions), going))
        return torch.where(going.mask[:, None], flat.to(self.device), self._valid).float()

    def _columns(self, actions: Any) -> Tensor | None:
        """Flat actions (n, a) float64 of arrays or tensors of the right shapes and types; None for anything else."""
        try:
            parts = self.space.parts(actions)
        except InputError:
            return None
        columns: list[Tensor] = []
        for leaf, part in zip(self.space.leaves, parts, strict=True):
            if not isinstance(part, Tensor | np.ndarray) or tuple(part.shape) != (self.count, *leaf.space.shape):
                return None
            kind = part.dtype.kind if isinstance(part, np.ndarray) else "f" if part.is_floating_point() else "i"
            if kind not in leaf.number_kinds:
                return None
            values = torch.as_tensor(part).detach().double().reshape(self.count, -1)
            columns.append(values.to(columns[0].device) if columns else values)
        return torch.cat(columns, dim=1)

    def _holds(self, flat: Tensor, going: Rows) -> bool:
        """Whether all actions that count are in the space."""
        if flat.device.type == "cpu":
            return bool(self.space.limits.hold(flat.numpy())[going.host].all())
        return not going.any() or bool((self._limits.hold(flat).all(dim=1) | ~going.mask).all())

    def _row_by_row(self, actions: Any, going: Rows) -> NDArray[np.float64]:
        try:
            sizes = {len(part) for part in self.space.parts(actions)}
            rows = list(iterate(self._batched, actions)) if sizes == {self.count} else []
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise InputError(
                f"actions {actions!r:.100} are no batch of {self.count} of {self.space}: {error}"
            ) from error
        if sizes != {self.count}:
            found = " and ".join(map(str, sorted(sizes)))
            raise InputError(f"{found} actions for {self.count} envs, expected one of {self.space} for each")
        flat = np.zeros((self.count, self.space.size))
        for i in np.flatnonzero(going.host):
            try:
                flat[i] = self.space.flatten(rows[i])
            except InputError as error:
                raise InputError(f"env {i}: action {rows[i]!r:.100} is not in {self.space}: {error}") from error
        return flat


def in_numpy(actions: Any) -> Any:
    """The same nest of actions with arrays in place of tensors, on whatever device they are."""
    if isinstance(actions, Tensor):
        values = actions.detach().cpu()
        # In double precision, which holds them all: numpy has no bfloat16.
        return (values.double() if values.is_floating_point() else values).numpy()
    if isinstance(actions, Mapping):
        return {name: in_numpy(part) for name, part in actions.items()}
    return type(actions)(map(in_numpy, actions)) if type(actions) in (tuple, list) else actions
