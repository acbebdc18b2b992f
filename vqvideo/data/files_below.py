"""The files of a kind below a folder, such as images or films."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path


def files_below(folder: Path, endings: frozenset[str]) -> tuple[list[Path], str]:
    """What ends in one of `endings`, relative to the folder and by name; and what else there is, in words.

    Only files, because to open a pipe would wait for ever; and no hidden ones: a Mac puts "._x.png" beside x.png.
    """
    shown = _shown(folder)
    files = sorted((path for path in shown if path.suffix.lower() in endings), key=str)
    others = Counter(path.suffix.lower() for path in shown if path.suffix.lower() not in endings)
    listed = ", ".join(f"{count} {ending or 'without ending'}" for ending, count in others.most_common(5))
    return files, listed


def files_called(path: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Files in whose names a pattern is found, where what follows the last dot does not tell: those below a folder, by
    name and without the hidden ones, or the one file that is given.
    """
    if path.is_file():
        return [path] if pattern.search(path.name) else []
    return sorted((path / name for name in _shown(path) if pattern.search(name.name)), key=str)


def _shown(folder: Path) -> list[Path]:
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return [path for path in found if not any(part.startswith(".") for part in path.parts)]
