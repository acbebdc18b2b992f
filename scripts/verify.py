"""Checks anything that vqvideo has written: may it be used, and which file is wrong.

    python scripts/verify.py data/car_racing runs/car_racing
    python scripts/verify.py downloads/world --deep

Stores, models, worlds, agents, training checkpoints, caches of codes and whole folders of runs are recognised by their
content. Ends with code 0 if nothing is damaged, 1 if something is, 2 if there is nothing to check. Nothing is written
but what --json asks for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from vqvideo import cli

if TYPE_CHECKING:
    from vqvideo.data.verify import Finding

DAMAGED_CODE = 1


@dataclass(frozen=True)
class Options:
    """What to check."""

    folders: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FOLDER [FOLDER ...]")]]
    """Folders to look into; everything inside is found."""
    deep: bool = False
    """Also decode every frame of every episode."""
    json: Path | None = None
    """A file for the findings, as JSON."""


def lines_of(findings: list[Finding]) -> Iterator[str]:
    """A line for each thing, what is wrong with it below, and a summary."""
    for found in findings:
        yield f"{'DAMAGED' if found.damage else 'ok':8s}  {found.kind:11s}  {found.path}"
        yield from (f"{'':10s}{complaint}" for complaint in found.damage)
    yield f"{len(findings)} checked, {sum(bool(found.damage) for found in findings)} damaged"


def printable(text: str) -> str:
    """Names come from a disk that is not trusted: what could steer the terminal is written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def main() -> None:
    """Reads the command line, checks, prints."""
    options = tyro.cli(Options, description=__doc__)

    from vqvideo.data.verify import verify
    from vqvideo.storage import files

    findings = verify(options.folders, deep=options.deep)
    damaged = sum(bool(found.damage) for found in findings)
    if options.json is not None:
        things = [found._asdict() | {"path": str(found.path)} for found in findings]
        report = {"checked": len(findings), "damaged": damaged, "things": things}
        files.write_file(options.json, (json.dumps(report, indent=2) + "\n").encode())
    print(*map(printable, lines_of(findings)), sep="\n")
    if damaged:
        sys.exit(DAMAGED_CODE)


if __name__ == "__main__":
    cli.run(main)
