"""What a benchmark found: tables for reading, and one JSON record with what it was measured on."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import torch

from vqvideo.evaluation.tables import table
from vqvideo.training.hardware import describe, hardware, versions

_INSTRUCTIONS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
"""Variables that limit the instructions of torch, oneDNN and MKL."""


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


def instruction_sets() -> str:
    """What a CPU computed with: it may have more, which variables of the environment hide."""
    hidden = [name for name in _INSTRUCTIONS if name in os.environ]
    settings = "".join(f", {name}={os.environ[name]}" for name in hidden)
    bf16 = "" if hidden else f", bf16 in hardware: {'yes' if torch.cpu._is_avx512_bf16_supported() else 'no'}"
    return f"instruction set of torch: {torch.backends.cpu.get_cpu_capability()}{settings}{bf16}"


def megabytes(count: float) -> str:
    """Bytes as MB, for a table."""
    return f"{count / 1e6:.1f}"


def rate(count: float) -> str:
    """Items per second, for a table: three figures are more than a timing holds."""
    return f"{count:,.0f}" if count >= 100 else f"{count:.3g}"
