"""Results of experiments as text."""

from __future__ import annotations

from typing import Any

from reliability.guarantees import GUARANTEES
from reliability.outcome import Guarantee


def line(guarantee: Guarantee, record: dict[str, Any]) -> str:
    """One experiment in a line."""
    if "not possible here" in record:
        return f"{guarantee.key:24s} not tried: this machine does not give {record['not possible here']}"
    trials, broken, seconds = record["trials"], len(record["failures"]), record["seconds"]
    return f"{guarantee.key:24s} {trials:7,d} trials  {broken:3d} broken  {seconds:7.1f} s  {_figures(record)}"


def markdown(report: dict[str, Any]) -> str:
    """The table of the docs: promise, experiment, trials, last result."""
    rows = [_row(g, report["results"][g.key]) for g in GUARANTEES if g.key in report["results"]]
    return "\n".join(["| promise | test | trials | broken | measured |", "|---|---|---|---|---|", *rows])


def _row(guarantee: Guarantee, record: dict[str, Any]) -> str:
    trials = "not possible there" if "not possible here" in record else f"{record['trials']:,}"
    return f"| {guarantee.promise} | {guarantee.key} | {trials} | {len(record['failures'])} | {_figures(record)} |"


def _figures(record: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_number(value)}" for name, value in record["figures"].items())


def _number(value: float) -> str:
    return f"{value:,}" if float(value).is_integer() and abs(value) >= 1000 else f"{value:.3g}"
