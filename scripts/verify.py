"""Checks anything that vqvideo has written: may it be used, which file is wrong, and what to do.

    python scripts/verify.py data/car_racing runs/car_racing
    python scripts/verify.py downloads/world --deep

Stores, models, worlds, agents, training checkpoints, caches of codes and whole folders of runs are recognised by their
content. Ends with code 0 if nothing is damaged, 1 if something is, 2 if there is nothing to check. Nothing is written
unless --repair or --json asks for it.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vqvideo import cli

DAMAGED_CODE = 1


@dataclass(frozen=True)
class Options:
    """What to check."""

    folders: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FOLDER [FOLDER ...]")]]
    """Folders to look into; everything inside is found."""
    deep: bool = False
    """Also decode every frame, compare every action with its space, and load every model."""
    repair: bool = False
    """Set damaged episodes of stores aside, so that the command that recorded them records them again."""
    json: Path | None = None
    """A file for the findings, as JSON."""


def main() -> None:
    """Reads the command line, checks, prints."""
    options = tyro.cli(Options, description=__doc__)

    from vqvideo.storage import files
    from vqvideo.verification import lines_of, verify

    # The report says it, and which file it is about.
    logging.getLogger("vqvideo.data.store").setLevel(logging.ERROR)
    report = verify(options.folders, deep=options.deep, repair=options.repair, progress=True)
    if options.json is not None:
        files.write_file(options.json, (json.dumps(report.to_json(), indent=2) + "\n").encode())
    print(*lines_of(report), sep="\n")
    if report.damaged:
        sys.exit(DAMAGED_CODE)


if __name__ == "__main__":
    cli.run(main)
