"""What a benchmark found: tables for reading, and one JSON record with what it was measured on."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from vqvideo.evaluation.tables import table
from vqvideo.training.hardware import describe, hardware, versions


@dataclass(frozen=True)
class Table:
    """Rows under a heading."""

    title: str
    """What was measured and how."""
    columns: tuple[str, ...]
    """Heads, the first one for the names."""
    rows: list[tuple[str, ...]] = field(default_factory=list)
    """Cells as text."""

    def __str__(self) -> str:
        return f"{self.title}\n\n{table(self.columns, self.rows)}"


@dataclass(frozen=True)
class Report:
    """A benchmark's outcome."""

    subject: str
    """What was measured."""
    settings: dict[str, Any]
    """Options, seeds and repetitions."""
    results: dict[str, Any] = field(default_factory=dict)
    """Figures by part; seconds, bytes and items per second."""
    tables: list[Table] = field(default_factory=list)
    """The same figures for reading."""
    notes: list[str] = field(default_factory=list)
    """What was left out, and why."""

    def to_json(self) -> dict[str, Any]:
        """Everything but the tables, with hardware and versions."""
        return {
            "subject": self.subject,
            "hardware": hardware(),
            "versions": versions(),
            "settings": self.settings,
            "notes": self.notes,
            "results": self.results,
        }

    def __str__(self) -> str:
        load = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
        return "\n\n".join([f"{describe()}, {load}", *map(str, self.tables), *(f"note: {n}" for n in self.notes)])


def megabytes(count: float) -> str:
    """Bytes as MB, for a table."""
    return f"{count / 1e6:.1f}"


def rate(count: float) -> str:
    """Items per second, for a table: three figures are more than a timing holds."""
    return f"{count:,.0f}" if count >= 100 else f"{count:.3g}"
