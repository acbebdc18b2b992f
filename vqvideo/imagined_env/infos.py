"""How results leave a vector environment: as tensors or arrays, infos laid out as Gymnasium's own are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from vqvideo.imagined_env.rows import Rows


class TorchOutput:
    """Tensors, where they are."""

    def array(self, value: Tensor) -> Any:
        """Any result."""
        return value

    def reward(self, value: Tensor) -> Any:
        """Rewards (n,)."""
        return value

    def mask(self, rows: Rows) -> Any:
        """Which rows, (n,) bool: a copy, because callers write into what they get."""
        return rows.mask.clone()

    def final(self, value: Tensor, rows: Rows) -> Any:
        """Last observations (n, ...), of which only those of the rows mean something."""
        return value

    def infos(self, values: Mapping[str, Tensor], rows: Rows) -> dict[str, Any]:
        """Values (n, ...) that some rows have, each beside the mask of these rows; the other rows get zeros."""
        infos: dict[str, Any] = {}
        for name, value in values.items() if rows.any() else ():
            own = value if rows.all() else value * rows.mask.reshape(-1, *[1] * (value.ndim - 1))
            infos |= {name: self.array(own), f"_{name}": self.mask(rows)}
        return infos

    def final_infos(self, observations: Tensor, values: Mapping[str, Tensor], rows: Rows) -> dict[str, Any]:
        """Last observations and infos of the episodes of some rows; nothing if there are none."""
        if not rows.any():
            return {}
        final = {"final_obs": self.final(observations, rows), "final_info": self.infos(values, rows)}
        return final | {f"_{name}": self.mask(rows) for name in final}


class NumpyOutput(TorchOutput):
    """Arrays on the host, with the types that Gymnasium's own vector environments give."""

    def array(self, value: Tensor) -> Any:
        # On a CPU this shares the tensor's memory.
        return value.cpu().numpy()

    def reward(self, value: Tensor) -> Any:
        return self.array(value).astype(np.float64)

    def mask(self, rows: Rows) -> Any:
        return rows.host.copy()

    def final(self, value: Tensor, rows: Rows) -> Any:
        values, objects = self.array(value), np.full(len(value), None, dtype=object)
        for i in np.flatnonzero(rows.host):
            objects[i] = values[i]
        return objects


OUTPUTS = {"numpy": NumpyOutput(), "torch": TorchOutput()}
