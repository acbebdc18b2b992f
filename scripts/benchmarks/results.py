"""Figures on disk: one file for each measurement, one that later calls of a bake-off add to, and its table."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from vqvideo.evaluation.tables import table
from vqvideo.storage import files
from vqvideo.storage.records import without_nan
from vqvideo.training.hardware import describe

Row = dict[str, Any]
"""The figures of one run, by name."""


class Results:
    """What is measured so far, by variant and seed, in a file that later calls add to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        known = json.loads(path.read_text())["variants"] if path.exists() else {}
        self.rows: dict[str, dict[int, Row]] = {
            name: {int(seed): row for seed, row in by_seed.items()} for name, by_seed in known.items()
        }

    def add(self, name: str, seed: int, row: Row) -> None:
        """Adds a row and writes the file."""
        self.rows.setdefault(name, {})[seed] = without_nan(row)
        write_figures(self.path, {"hardware": describe(), "variants": self.rows})


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """Writes figures as JSON, null for what could not be measured; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_file(path, (json.dumps(without_nan(figures), indent=2, allow_nan=False) + "\n").encode())


def means(rows: Mapping[str, Mapping[int, Row]], columns: Mapping[str, str], with_spread: Collection[str] = ()) -> str:
    """The table of means over seeds.

    Args:
        rows: by variant and seed.
        columns: the figures to show and how each is formatted.
        with_spread: the figures that show half the range of the seeds too.
    """
    lines = []
    for name, by_seed in rows.items():
        seeds = list(by_seed.values())
        cells = [_cell([row[key] for row in seeds], form, key in with_spread) for key, form in columns.items()]
        lines.append((name, str(len(by_seed)), *cells))
    return table(("variant", "seeds", *columns), lines)


def _cell(values: list[Any], form: str, with_spread: bool) -> str:
    """A word as it is; a dash where nothing could be measured."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    if isinstance(known[0], str):
        return ", ".join(dict.fromkeys(known))
    spread = f" ± {(max(known) - min(known)) / 2:{form}}" if with_spread and len(known) > 1 else ""
    return f"{mean(known):{form}}{spread}"
