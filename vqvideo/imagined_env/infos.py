"""Infos of a vector environment, laid out as Gymnasium's own are: each entry beside the mask of those that have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from vqvideo.imagined_env.rows import Rows


class Form(NamedTuple):
    """How results leave the environment."""

    array: Callable[[Tensor], Any]
    """Any tensor as what the caller asked for."""
    reward: Callable[[Tensor], Any]
    """Rewards likewise."""
    mask: Callable[[Rows], Any]
    """A choice of rows, (n,) bool: a copy, because callers write into what they get."""
    final: Callable[[Tensor, Rows], Any]
    """Last observations (n, ...) of the rows."""


def _numpy(value: Tensor) -> np.ndarray:
    # On a CPU this shares the tensor's memory.
    return value.cpu().numpy()


def _objects(value: Tensor, rows: Rows) -> np.ndarray:
    """An array of n objects: arrays for the rows, None for the others."""
    values, array = _numpy(value), np.full(len(value), None, dtype=object)
    for i in np.flatnonzero(rows.host):
        array[i] = values[i]
    return array


FORMS = {
    "numpy": Form(_numpy, lambda reward: _numpy(reward).astype(np.float64), lambda rows: rows.host.copy(), _objects),
    "torch": Form(
        lambda value: value, lambda reward: reward, lambda rows: rows.mask.clone(), lambda value, rows: value
    ),
}
"""By the name of the output."""


class Infos:
    """Gathers the infos of one step or reset."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._values: dict[str, Any] = {}

    def add(self, values: Mapping[str, Tensor], rows: Rows) -> None:
        """Values (n, ...) that some rows have; the others get zeros."""
        if rows.any():
            self._values |= self._entries(values, rows)

    def add_final(self, observations: Tensor, values: Mapping[str, Tensor], rows: Rows) -> None:
        """Last observations and infos of the episodes that are over."""
        self._values |= {"final_obs": self._form.final(observations, rows), "_final_obs": self._form.mask(rows)}
        self._values |= {"final_info": self._entries(values, rows), "_final_info": self._form.mask(rows)}

    def done(self) -> dict[str, Any]:
        """All of it."""
        return self._values

    def _entries(self, values: Mapping[str, Tensor], rows: Rows) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for name, value in values.items():
            own = value if rows.all() else value * rows.mask.reshape(-1, *[1] * (value.ndim - 1))
            entries |= {name: self._form.array(own), f"_{name}": self._form.mask(rows)}
        return entries
