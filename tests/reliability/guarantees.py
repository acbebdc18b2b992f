"""All promises, in the order of the table."""

from __future__ import annotations

from reliability import (
    company,
    corruption,
    crashes,
    disks,
    fuzz,
    hostile,
    kills,
    lies,
    load_data,
    load_dreams,
    load_runs,
    load_shared_memory,
    not_finite,
    recordings,
    stops,
)
from reliability.outcome import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    *kills.GUARANTEES,
    *recordings.GUARANTEES,
    *crashes.GUARANTEES,
    *stops.GUARANTEES,
    *disks.GUARANTEES,
    *not_finite.GUARANTEES,
    *company.GUARANTEES,
    *corruption.GUARANTEES,
    *hostile.GUARANTEES,
    *lies.GUARANTEES,
    *fuzz.GUARANTEES,
    *load_data.GUARANTEES,
    *load_dreams.GUARANTEES,
    *load_runs.GUARANTEES,
    *load_shared_memory.GUARANTEES,
)
"""A new experiment is a function, its `Guarantee` in its module, and nothing here."""
