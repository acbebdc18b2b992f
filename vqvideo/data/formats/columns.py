"""Which column of a table is what: by the names that are usual, or as the user says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.formats.rows import Rows
from vqvideo.errors import InputError, suggest

ROLES: dict[str, tuple[str, ...]] = {
    "frames": ("frames", "frame", "images", "image", "pixels", "observations", "observation", "obs", "video", "rgb"),
    "actions": ("actions", "action"),
    "rewards": ("rewards", "reward", "next.reward"),
    "ends": ("terminated", "terminations", "terminals", "terminal", "is_terminal", "dones", "done", "next.done"),
}
"""What a column can be, and how it is called unless the user says it, the first that is there."""


def chosen(names: Iterable[str], asked: Mapping[str, Any], where: str) -> dict[str, list[str]]:
    """The columns of each role.

    Args:
        names: of all columns.
        asked: as `ImportConfig.columns`: a name or several for a role; null for none.
        where: begins errors.

    Raises:
        InputError: a column that is asked for is not there.
    """
    listed = list(names)
    found = {role: _asked(role, asked[role], listed, where) if role in asked else usual(role, listed) for role in ROLES}
    return {role: columns for role, columns in found.items() if columns}


def usual(role: str, names: Sequence[str]) -> list[str]:
    """The columns that usually have a role; several where one was written as its elements, as action_0, action_1."""
    for name in ROLES[role]:
        if name in names:
            return [name]
    return [name for name in names if role == "actions" and name.lower().startswith("action")]


def _asked(role: str, asked: Any, names: list[str], where: str) -> list[str]:
    columns = [] if asked is None else [str(name) for name in (asked if isinstance(asked, list) else [asked])]
    for name in columns:
        if name not in names:
            raise InputError(
                f"{where}: there is no column {name!r} (--columns {role}={name}); "
                f"{suggest(name, names) or 'known: ' + ', '.join(sorted(names)[:20]) + ', ...'}"
            )
    return columns


def check_columns(asked: Mapping[str, Any]) -> None:
    """InputError for a role that there is not, or a value that is no name."""
    for role, value in asked.items():
        if role not in ROLES:
            raise InputError(f"--columns: {role!r} is no role; {suggest(role, ROLES) or ', '.join(ROLES)}")
        several = value if isinstance(value, list) else [value]
        if value is not None and not all(isinstance(name, str | int) for name in several):
            raise InputError(f"--columns {role}: found {value!r:.80}, expected a name, or several as in [steer, gas]")


def rows_of(table: Mapping[str, NDArray[Any]], asked: Mapping[str, Any], where: str) -> Rows:
    """The rows of a table of columns (n,) or (n, ...).

    Raises:
        InputError: a column is missing or none of numbers.
    """
    roles = chosen(table, asked, where)
    return Rows(
        joined([table[name] for name in roles.get("actions", ())], where),
        _single(table, roles.get("rewards")),
        _single(table, roles.get("ends")),
    )


def joined(columns: Sequence[NDArray[Any]], where: str) -> NDArray[Any] | None:
    """Columns beside each other; None of none. A single one keeps its shape, by which a choice is known."""
    if not columns:
        return None
    if len(columns) == 1:
        return columns[0]
    for column in columns:
        if column.dtype.kind not in "fiub":
            raise InputError(f"{where}: a column of the actions is {column.dtype}, expected numbers")
    return np.concatenate([column.reshape(len(column), -1) for column in columns], axis=1)


def _single(table: Mapping[str, NDArray[Any]], names: list[str] | None) -> NDArray[Any] | None:
    if not names:
        return None
    column = table[names[0]]
    return column[:, 0] if column.ndim == 2 and column.shape[1] == 1 else column
