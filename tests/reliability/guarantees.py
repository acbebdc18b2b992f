"""All promises, in the order of the table."""

from __future__ import annotations

from reliability import codec, crashes, damage, kills
from reliability.outcome import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (*kills.GUARANTEES, *crashes.GUARANTEES, *damage.GUARANTEES, *codec.GUARANTEES)
"""A new experiment is a function, its `Guarantee` in its module, and nothing here."""
