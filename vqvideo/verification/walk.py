"""Finds everything of vqvideo's under a folder, without following a link or opening anything but regular files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from vqvideo.verification.findings import Remark, reason
from vqvideo.verification.kinds import REPORTS, STEP, kinds_of, list_folder
from vqvideo.verification.leftovers import left_in

MAX_DEPTH = 64
"""Folders inside each other: nothing of ours is nested so deeply."""


class Place(NamedTuple):
    """Something to check."""

    kind: str
    path: Path


@dataclass
class Found:
    """What lies under a folder."""

    places: list[Place] = field(default_factory=list)
    """Things, each folder before what is in it."""
    leftovers: list[tuple[Path, Remark]] = field(default_factory=list)
    """What belongs to no thing."""
    bytes: int = 0
    """Size of the files of the things."""


def find(root: Path) -> Found:
    """All things under `root`, itself included. A folder that is named may be a link; those inside are not followed."""
    found = Found()
    waiting = [(Path(os.path.realpath(root)) if root.is_symlink() else root, 0)]
    while waiting:
        path, depth = waiting.pop()
        if depth > MAX_DEPTH:
            found.leftovers.append((path, Remark("", f"more than {MAX_DEPTH} folders deep: not looked into")))
            continue
        try:
            below = _visit(path, found)
        except OSError as error:
            found.leftovers.append((path, Remark("", f"not looked into: {reason(error, path)}")))
            continue
        waiting += [(path / name, depth + 1) for name in sorted(below, reverse=True)]
    if not any(place.kind in ("training", "rounds") for place in found.places):
        # Files of these names are everywhere; beside a run they are ours.
        found.places = [place for place in found.places if place.kind != "report"]
    return found


def _visit(path: Path, found: Found) -> list[str]:
    """Looks at one folder and returns the folders to look into next."""
    names = list_folder(path)
    kinds = kinds_of(path, names)
    found.places += [Place(kind, path) for kind in kinds]
    found.places += [Place("report", path / name) for name in sorted(REPORTS & names.files.keys())]
    found.leftovers += left_in(path, names)
    if kinds or path.name == "episodes":
        found.bytes += sum(names.files.values())
    aside = (".tmp-", "damaged-")
    return [name for name in names.folders if not (name.startswith(aside) and _is_aside(name))]


def _is_aside(name: str) -> bool:
    return name.startswith(".tmp-") or STEP.fullmatch(name.removeprefix("damaged-")) is not None
