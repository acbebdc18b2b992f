"""What a benchmark found: tables for reading, one JSON record, and what it was measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from vqvideo.training.hardware import available_cores, describe

PACKAGES = ("vqvideo", "torch", "numpy", "vector-quantize-pytorch")


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
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        return "\n".join([self.title, *(_aligned(line, widths) for line in lines)])


@dataclass(frozen=True)
class Report:
    """A benchmark's outcome."""

    subject: str
    """What was measured."""
    settings: dict[str, Any]
    """Options, seeds and repetitions."""
    results: dict[str, Any]
    """Figures by part; seconds, bytes and items per second."""
    tables: list[Table]
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


def hardware() -> dict[str, Any]:
    """The machine, and how busy it was: other work shows in every wall-clock figure."""
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "description": describe(),
        "cores": available_cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that matter; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def megabytes(count: float) -> str:
    """Bytes as MB, for a table."""
    return f"{count / 1e6:.1f}"


def rate(count: float) -> str:
    """Items per second, for a table: three figures are more than a timing holds."""
    return f"{count:,.0f}" if count >= 100 else f"{count:.3g}"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(["  " + first, *rest])
