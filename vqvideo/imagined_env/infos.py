"""Infos of a vector environment, laid out as Gymnasium's own are: each entry beside the mask of those that have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor


class Form(NamedTuple):
    """How results leave the environment."""

    array: Callable[[Tensor], Any]
    """Any tensor as what the caller asked for."""
    reward: Callable[[Tensor], Any]
    """Rewards likewise."""
    final: Callable[[Tensor, Tensor], Any]
    """Last observations (n, ...) where the mask (n,) is True."""


def _numpy(value: Tensor) -> np.ndarray:
    # On a CPU this shares the tensor's memory.
    return value.cpu().numpy()


def _objects(value: Tensor, rows: Tensor) -> np.ndarray:
    """An array of n objects: arrays where `rows` is True, None elsewhere."""
    array = np.full(len(value), None, dtype=object)
    for i in rows.nonzero()[:, 0].tolist():
        array[i] = _numpy(value[i])
    return array


def _same(value: Tensor, *_: Tensor) -> Tensor:
    return value


numpy_form = Form(_numpy, lambda reward: _numpy(reward).astype(np.float64), _objects)
torch_form = Form(_same, _same, _same)


class Infos:
    """Gathers the infos of one step or reset."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._values: dict[str, Any] = {}

    def add(self, values: Mapping[str, Tensor], rows: Tensor) -> None:
        """Values (n, ...) that the envs of the (n,) bool mask have; the others get zeros."""
        if bool(rows.any()):
            self._values |= self._entries(values, rows)

    def add_final(self, observations: Tensor, values: Mapping[str, Tensor], rows: Tensor) -> None:
        """Last observations and infos of the episodes that are over."""
        mask = self._form.array(rows)
        self._values |= {"final_obs": self._form.final(observations, rows), "_final_obs": mask}
        self._values |= {"final_info": self._entries(values, rows), "_final_info": mask}

    def done(self) -> dict[str, Any]:
        """All of it."""
        return self._values

    def _entries(self, values: Mapping[str, Tensor], rows: Tensor) -> dict[str, Any]:
        mask, all_have = self._form.array(rows), bool(rows.all())
        entries: dict[str, Any] = {}
        for name, value in values.items():
            own = value if all_have else value * rows.reshape(-1, *[1] * (value.ndim - 1))
            entries |= {name: self._form.array(own), f"_{name}": mask}
        return entries
