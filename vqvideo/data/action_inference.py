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


def as_columns(actions: NDArray[Any], where: str) -> NDArray[Any]:
    """Actions (n, ...) as (n, a), of the number type that they have. InputError if they are no finite numbers."""
    if actions.dtype.kind not in "fiub" or not actions.ndim:
        found = f"{actions.dtype} of shape {actions.shape}"
        raise InputError(f"{where}: actions are {found}, expected finite numbers or bools (steps, ...)")
    columns = actions.reshape(len(actions), int(np.prod(actions.shape[1:])))
    if columns.dtype.kind == "f" and not np.isfinite(columns).all():
        row = int(np.argmin(np.isfinite(columns).all(axis=1)))
        raise InputError(f"{where}: the action of row {row} is {columns[row].tolist()}, expected finite numbers")
    return columns


class SpaceFinder:
    """Looks at the actions of all episodes, one after the other, and then names the smallest natural space that holds
    them: Discrete for whole numbers (T,), MultiDiscrete for (T, a), MultiBinary for bools, a Box with a margin for all
    other numbers, and an empty space where nothing acts.
    """

    def __init__(self) -> None:
        self._low = self._high = np.zeros(0)
        self._kinds: set[str] = set()
        self._vector = False
        self._first = ""

    def add(self, actions: NDArray[Any], where: str, vector: bool | None = None) -> None:
        """Looks at actions (T, ...).

        Args:
            actions: numbers or bools.
            where: begins errors.
            vector: whether each action was an array; by default if they are not (T,).

        Raises:
            InputError: of another number of columns than those before, or no finite numbers.
        """
        columns = as_columns(actions, where)
        if not len(columns):
            return
        low, high = columns.min(axis=0), columns.max(axis=0)
        if not self._kinds:
            self._low, self._high, self._first = low, high, where
            self._vector = actions.ndim > 1 if vector is None else vector
        if low.shape != self._low.shape:
            raise InputError(
                f"{where}: actions have {len(low)} columns, those of {self._first} {len(self._low)}: expected as many"
            )
        self._kinds.add("i" if columns.dtype.kind == "u" else columns.dtype.kind)
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)

    def space(self) -> ActionSpace:
        """The space of what was seen."""
        return ActionSpace.from_gymnasium(self._space()) if self._low.size else ActionSpace.none()

    def _space(self) -> Any:
        from gymnasium import spaces

        if self._kinds == {"b"}:
            return spaces.MultiBinary(len(self._low))
        if self._kinds == {"i"}:
            start = np.minimum(self._low.astype(np.int64), 0)
            sizes = self._high.astype(np.int64) - start + 1
            if sizes.max() <= MOST_CATEGORIES:
                choices = spaces.Discrete(int(sizes[0]), start=int(start[0]))
                return spaces.MultiDiscrete(sizes, start=start) if self._vector else choices
        low, high = self._low.astype(np.float64), self._high.astype(np.float64)
        bound = np.maximum(1.0, np.maximum(np.abs(low), np.abs(high)))
        # A range that float32 cannot tell from none counts as none.
        room = MARGIN * np.where(high - low > 1e-6 * bound, high - low, bound)
        return spaces.Box((low - room).astype(np.float32), (high + room).astype(np.float32), dtype=np.float32)


def inferred(episodes: Iterable[tuple[NDArray[Any], bool]]) -> ActionSpace:
    """The space that `SpaceFinder` finds.

    Args:
        episodes: of each its actions (T, a), and whether each action was an array.

    Raises:
        InputError: actions of several sizes, or none that are numbers; names the episode.
    """
    finder = SpaceFinder()
    for number, (actions, vector) in enumerate(episodes):
        finder.add(actions, f"episodes[{number}]", vector)
    return finder.space()


def guess(space: ActionSpace) -> str:
    """What to say of a space that was inferred."""
    if any(column.categories is None for column in space.columns):
        low, high = ([f"{getattr(column, end):.4g}" for column in space.columns[:6]] for end in ("low", "high"))
        more = ", ..." if space.size > 6 else ""
        return (
            f"nothing says what bounds the actions: they are taken from the data, with a margin of {MARGIN:.0%}: "
            f"[{', '.join(low)}{more}] to [{', '.join(high)}{more}]"
        )
    return f"the space of the actions follows from those that occur: {space}" if space.size else ""
