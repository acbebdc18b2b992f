"""The lines of a store's manifest, read one by one, so that a damaged one does not hide the others."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from vqvideo.data.index import EpisodeEntry, StoreMeta, from_line
from vqvideo.data.index import read_meta as read_store_meta
from vqvideo.errors import InputError
from vqvideo.storage import files

MANIFEST = "manifest.jsonl"
MOST_DAMAGED = 1000
"""Lines; a file with more of them is not read on."""


class Line(NamedTuple):
    """A line."""

    number: int
    """From 1."""
    text: bytes
    """Without its end."""
    entry: EpisodeEntry | None
    """What it says; None if it is damaged."""
    problem: str
    """What is wrong with it; empty if nothing is."""


class Lines(NamedTuple):
    """The manifest of a store."""

    lines: list[Line]
    torn: bytes
    """What stands after the last end of a line: the beginning of a line whose writing was interrupted."""

    @property
    def entries(self) -> list[EpisodeEntry]:
        """What the intact lines say."""
        return [line.entry for line in self.lines if line.entry]


def read_meta(folder: Path) -> tuple[StoreMeta, str]:
    """The meta of a store and its digest, which every line names."""
    return read_store_meta(folder)


def read_lines(folder: Path) -> Lines:
    """All lines of the manifest. InputError or OSError if the file cannot be read at all."""
    *texts, torn = files.read_small(folder / MANIFEST).split(b"\n")
    if torn and _read(torn[:-1], 0).entry:
        # A complete line, with something else where its end was.
        texts, torn = [*texts, torn], b""
    lines: list[Line] = []
    damaged = 0
    for number, text in enumerate(texts, 1):
        lines.append(_read(text, number))
        damaged += lines[-1].entry is None
        if damaged > MOST_DAMAGED:
            raise InputError(f"{folder / MANIFEST}: more than {MOST_DAMAGED} lines are damaged")
    return Lines(lines, torn)


def _read(text: bytes, number: int) -> Line:
    try:
        return Line(number, text, from_line(text + b"\n", "line"), "")
    except InputError as error:
        return Line(number, text, None, str(error).removeprefix("line").lstrip(": "))


def repeated(entries: list[EpisodeEntry]) -> list[int]:
    """Numbers of the episodes that more than one line names."""
    seen: set[int] = set()
    return sorted({entry.index for entry in entries if entry.index in seen or seen.add(entry.index)})  # type: ignore[func-returns-value]
