"""All promises, in the order of the table."""

from __future__ import annotations

from reliability import crashes, damage, kills
from reliability.outcome import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (*kills.GUARANTEES, *crashes.GUARANTEES, *damage.GUARANTEES)
"""A new experiment is a function, its `Guarantee` in its module, and nothing here."""
