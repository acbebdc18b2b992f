"""The one printer of tables of figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite


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


def cell(value: float | None, form: str) -> str:
    """A figure in a format such as .2f; a dash for one that is missing or not finite."""
    return f"{value:{form}}" if value is not None and isfinite(value) else "-"


def _padded(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *others = zip(line, widths, strict=True)
    return [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
