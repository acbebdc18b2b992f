"""A report as lines of text. Names come from a disk that is not trusted, so nothing reaches the terminal unchecked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby

from vqvideo.verification.findings import Remark, Report, Thing

MOST_LINES = 50
"""Remarks on one thing that are printed; `Report.to_json` has them all."""
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_HANGING = " " * 10


def lines_of(report: Report) -> Iterator[str]:
    """A line for each thing, with what is wrong below it, then the leftovers and the summary."""
    for thing in report.things:
        state = "DAMAGED" if thing.damage else "ok"
        about = f"  ({thing.about})" if thing.about else ""
        yield printable(f"{state:8s}  {thing.kind:13s}  {thing.path}{about}")
        yield from _remarks(thing)
    for path, remark in report.leftovers:
        yield printable(f"note      {path}: {remark.what}")
        yield from _remedy(remark.remedy)
    yield ""
    yield report.summary()


def printable(text: str) -> str:
    """`text` with everything that could steer a terminal, or that it could not show, written as an escape; digests
    are shortened.
    """
    shown = _DIGEST.sub(r"\1...", text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in shown)


def _remarks(thing: Thing) -> Iterator[str]:
    for remarks, prefix in ((thing.damage, ""), (thing.notes, "note: ")):
        shown = remarks[:MOST_LINES]
        for remedy, group in groupby(shown, key=lambda remark: remark.remedy):
            for remark in group:
                yield printable(f"{_HANGING}{prefix}{_what(remark)}")
            yield from _remedy(remedy)
        if len(remarks) > len(shown):
            yield f"{_HANGING}{prefix}and {len(remarks) - len(shown)} more: --json FILE has them all"


def _what(remark: Remark) -> str:
    return f"{remark.where}: {remark.what}" if remark.where else remark.what


def _remedy(remedy: str) -> Iterator[str]:
    if remedy:
        yield printable(f"{_HANGING}-> {remedy}")
