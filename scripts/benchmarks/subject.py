"""What a benchmark is: frozen options that know how to measure. Light to import, for a quick --help."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vqvideo.errors import InputError

if TYPE_CHECKING:
    from vqvideo.scripts.benchmarks.report import Report


@dataclass(frozen=True)
class Benchmark(ABC):
    """Options that all subjects have."""

    json: Path | None = None
    """File for figures, hardware, versions and repetitions."""
    quick: bool = False
    """A smoke run of seconds with tiny sizes. Its figures mean nothing."""

    @abstractmethod
    def measure(self) -> Report:
        """Runs everything, on the CPU and on the GPU if there is one."""


def check_streams(streams: tuple[int, ...]) -> None:
    """InputError unless there is something to step."""
    if not streams or min(streams) < 1:
        raise InputError(f"--streams is {streams}, expected numbers of at least 1")
