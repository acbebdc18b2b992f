"""What an experiment found, and the promise that it tries."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Outcome:
    """What came of an experiment."""

    trials: int
    """How many cases were tried."""
    failures: tuple[str, ...] = ()
    """Every case in which the promise was broken, in a line each."""
    figures: dict[str, int] = field(default_factory=dict)
    """What was counted beside, by name."""


class Experiment(Protocol):
    """Tries a promise in an empty folder `work`, in about `trials` cases, the choices among them drawn from `seed`."""

    def __call__(self, work: Path, trials: int, seed: int) -> Outcome: ...


@dataclass(frozen=True)
class Guarantee:
    """A promise of the project and the experiment that tries it."""

    key: str
    """Short and unique: what `pytest -k` and the command line call it."""
    promise: str
    """One sentence, for users."""
    experiment: Experiment
    """What tries it."""
    fast: int
    """Trials in the tests."""
    long: int
    """Trials of the long run."""
