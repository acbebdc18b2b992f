"""Sets the damaged episodes of a store aside, so that the command that recorded it fills the gaps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from vqvideo.storage import files
from vqvideo.storage.locks import FolderLock
from vqvideo.verification.again import COPY, how_to_record, lost_for_good
from vqvideo.verification.lines import MANIFEST, read_lines, read_meta, repeated
from vqvideo.verification.stores import DAMAGED, EPISODES, episode_problem, unnamed_episodes
from vqvideo.verification.work import Work


class Repair(NamedTuple):
    """What was done to a store."""

    episodes: list[int]
    """Numbers of the episodes whose lines or files were set aside."""
    lines: int
    """Lines that were left out."""
    remedy: str
    """How to come by the episodes again."""


def repair_store(path: Path, work: Work) -> Repair:
    """Leaves damaged lines, and lines of damaged episodes, out of the manifest, and renames the files that are then
    without a line to `episodes/damaged-...`. What is intact stays as it is, byte for byte.

    A recording that is continued afterwards plays the missing episodes again: each is a function of the run's seed and
    of its number alone.

    Raises:
        InputError: another process writes into the store, or its meta or its whole manifest cannot be read.
    """
    with FolderLock(path):
        meta, _ = read_meta(path)
        lines = read_lines(path)
        twice = set(repeated(lines.entries))
        bad = {e.index for e in lines.entries if e.index not in twice and episode_problem(path, e, meta, work)}
        out = [line for line in lines.lines if line.entry is None or line.entry.index in bad | twice]
        lost = unnamed_episodes(path, lines)
        if not out and len(lost) < 2:
            return Repair([], 0, "")
        _set_aside(path, [Path(e.file).name for e in lines.entries if e.index in bad | twice] + lost)
        kept = [line.text + b"\n" for line in lines.lines if line not in out]
        files.write_file(path / MANIFEST, b"".join(kept))
    numbers = sorted(bad | twice | {int(Path(name).stem) for name in lost})
    last = max([*numbers, *(entry.index for entry in lines.entries)])
    gone = lost_for_good(path, meta, lines.entries)
    return Repair(numbers, len(out), COPY if gone else f"`{how_to_record(path, meta, lines.entries, last)}` fills gaps")


def _set_aside(path: Path, names: list[str]) -> None:
    """Renames files before their lines go: a crash in between leaves what can be repaired again."""
    for name in names:
        file = path / EPISODES / name
        if file.is_file() and not file.is_symlink():
            os.replace(file, file.with_name(DAMAGED + name))
    files.sync_folder(path / EPISODES)
