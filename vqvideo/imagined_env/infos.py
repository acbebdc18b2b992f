"""Infos laid out as Gymnasium's own vector environments lay them out, and results as arrays on the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from vqvideo.imagined_env.rows import Rows


def infos_of(values: Mapping[str, Tensor], rows: Rows) -> dict[str, Any]:
    """Values (n, ...) that some rows have, each beside the mask of these rows; the other rows get zeros."""
    infos: dict[str, Any] = {}
    for name, value in values.items() if rows.any() else ():
        own = value if rows.all() else value * rows.mask.reshape(-1, *[1] * (value.ndim - 1))
        # Masks are copies: callers write into what they get.
        infos |= {name: own, f"_{name}": rows.mask.clone()}
    return infos


def final_infos_of(observations: Tensor, values: Mapping[str, Tensor], rows: Rows) -> dict[str, Any]:
    """Last observations and infos of the episodes of some rows; nothing if there are none."""
    if not rows.any():
        return {}
    final = {"final_obs": observations, "final_info": infos_of(values, rows)}
    return final | {f"_{name}": rows.mask.clone() for name in final}


def as_arrays(value: Any) -> Any:
    """A result, or infos, as arrays; on a CPU they share the tensors' memory. Last observations become objects, None
    where an episode goes on.
    """
    if isinstance(value, Tensor):
        return value.cpu().numpy()
    arrays = {name: as_arrays(part) for name, part in value.items()}
    if "final_obs" in arrays:
        objects = np.full(len(arrays["final_obs"]), None, dtype=object)
        for i in np.flatnonzero(arrays["_final_obs"]):
            objects[i] = arrays["final_obs"][i]
        arrays["final_obs"] = objects
    return arrays
