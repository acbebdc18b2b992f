"""The action space of recorded actions, where nobody says it: from their types and from the values that occur."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

MARGIN = 0.1
"""Share of the range that occurs by which a Box reaches beyond it, at either end."""
MOST_CATEGORIES = 4096
"""Whole numbers of a wider range are measurements, and no choices."""
_KINDS = {"b": "bools", "i": "whole numbers", "u": "whole numbers", "f": "floats"}


def inferred(episodes: Iterable[tuple[NDArray[Any], bool]]) -> ActionSpace:
    """The smallest natural space that holds all actions: Discrete for whole numbers (T,), MultiDiscrete for (T, a),
    MultiBinary for bools, a Box with a margin for floats, and an empty one where nothing acts.

    Args:
        episodes: of each its actions (T, a), and whether each action was an array.

    Raises:
        InputError: actions of several types or sizes, or of none that can be guessed from; names the episode.
    """
    kind: str | None = None
    low = high = np.zeros(0)
    for number, (actions, vector) in enumerate(episodes):
        found = f"{_KINDS.get(actions.dtype.kind, actions.dtype.name)} of {actions.shape[1]} columns"
        if actions.dtype.kind not in _KINDS or not np.isfinite(actions).all():
            raise InputError(f"episodes[{number}]: actions are {actions.dtype}, expected finite numbers or bools")
        if kind is None:
            first, kind, low, high = vector, found, actions.min(axis=0), actions.max(axis=0)
        if found != kind or vector != first:
            raise InputError(f"episodes[{number}]: actions are {found}, those before are {kind}: give action_space=")
        low, high = np.minimum(low, actions.min(axis=0)), np.maximum(high, actions.max(axis=0))
    return ActionSpace.from_gymnasium(_space(low, high, first)) if low.size else ActionSpace.none()


def _space(low: NDArray[Any], high: NDArray[Any], vector: bool) -> Any:
    """The Gymnasium space of columns with these smallest and largest values."""
    from gymnasium import spaces

    if low.dtype.kind == "b":
        return spaces.MultiBinary(len(low))
    if low.dtype.kind == "f":
        bound = np.maximum(1.0, np.maximum(np.abs(low), np.abs(high)))
        # A range that float32 cannot tell from none counts as none.
        room = MARGIN * np.where(high - low > 1e-6 * bound, high - low, bound)
        return spaces.Box((low - room).astype(np.float32), (high + room).astype(np.float32), dtype=np.float32)
    start = np.minimum(low.astype(np.int64), 0)
    sizes = high.astype(np.int64) - start + 1
    if sizes.max() > MOST_CATEGORIES:
        raise InputError(
            f"actions are whole numbers from {low.min()} to {high.max()}, too many to be choices: give action_space=, "
            "such as gymnasium.spaces.Box, or actions as floats"
        )
    return spaces.MultiDiscrete(sizes, start=start) if vector else spaces.Discrete(int(sizes[0]), start=int(start[0]))
