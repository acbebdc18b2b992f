"""The one printer of tables of figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

ALL_UP_TO = 16
"""A longer horizon shows its steps 1, 2, 4, 8 ... and the last one only."""


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns are padded, so that a terminal shows it as well as a README does.

    The first column is to the left, for it names the rows; the others are to the right, for they hold figures.

    Args:
        headers: of the columns.
        rows: cells as text, in each row as many as there are headers.
    """
    lines = [[_escaped(cell) for cell in line] for line in (headers, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width if not i else "-" * (width - 1) + ":" for i, width in enumerate(widths)])
    return "\n".join(f"| {' | '.join(_padded(line, widths))} |" for line in lines)


def step_table(columns: Mapping[str, tuple[Any, str]], steps: Sequence[str] = (), name: str = "step") -> str:
    """The table of figures along the horizon: of all steps if they are few.

    Args:
        columns: by head: the values (m,), or None for a column to leave out, and their format.
        steps: what to call the m rows; by default 1 .. m.
        name: head of the first column.
    """
    kept = {head: column for head, column in columns.items() if column[0] is not None}
    last = max(len(values) for values, _ in kept.values())
    shown = sorted({2**i - 1 for i in range(last.bit_length())} | {last - 1}) if last > ALL_UP_TO else range(last)
    rows = [[steps[i] if steps else str(i + 1), *(cell(v[i], form) for v, form in kept.values())] for i in shown]
    return table([name, *kept], rows)


def cell(value: float | None, form: str) -> str:
    """A figure in a format such as .2f; a dash for one that is missing or not finite."""
    return f"{value:{form}}" if value is not None and isfinite(value) else "-"


def _padded(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *others = zip(line, widths, strict=True)
    return [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
