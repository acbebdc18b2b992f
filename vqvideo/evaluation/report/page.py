"""A page of sections as one HTML file: without scripts, fonts or requests, in light and dark, on small and large
screens.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from string import Template
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vqvideo.evaluation.metrics import evenly
from vqvideo.evaluation.pictures import resized, shown_size
from vqvideo.storage.records import without_nan

Frames = NDArray[np.uint8]

STRIP = 10
"""Frames of a row of a sheet."""
_SIDE, _MOST = 64, 128
"""Pixels on a side of a frame in a sheet: small ones, such as maps of codes, are enlarged to about the first, large
ones shrunk to the second."""
_GAP = 2
"""Pixels between the frames of a row, through which the page is seen."""


class Section(NamedTuple):
    """A part of the page."""

    title: str
    """Plain text, what it shows."""
    caption: str
    """Plain text: how it was measured, in which unit, over how many clips, and how to read it."""
    body: str
    """HTML."""


def page(title: str, about: str, sections: Sequence[Section], figures: Any) -> str:
    """The whole page.

    Args:
        title: plain text.
        about: plain text, a line below it.
        sections: in the order in which they are read.
        figures: JSON values that the page holds besides, for programs that read it.
    """
    places = [f"part-{number}" for number in range(1, len(sections) + 1)]
    links = "".join(f'<a href="#{at}">{html.escape(part.title)}</a>' for at, part in zip(places, sections, strict=True))
    parts = "".join(_section(at, part) for at, part in zip(places, sections, strict=True))
    # "<" would let a name end the element.
    data = json.dumps(without_nan(figures), allow_nan=False).replace("<", "\\u003c")
    return _PAGE.substitute(title=html.escape(title), about=html.escape(about), links=links, parts=parts, data=data)


def _section(at: str, part: Section) -> str:
    caption = f'<p class="caption">{html.escape(part.caption)}</p>' if part.caption else ""
    return f'<section id="{at}"><h2>{html.escape(part.title)}</h2>{caption}{part.body}</section>\n'


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], best: Sequence[int | None] = ()) -> str:
    """A table, whose first column names the rows.

    Args:
        headers: of the columns.
        rows: cells as plain text.
        best: for each row the cell that is marked as the best one, if any.
    """
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in headers)
    rows = list(rows)
    marks = best or [None] * len(rows)
    lines = "".join(_line(cells, mark) for cells, mark in zip(rows, marks, strict=True))
    return _scrolled(f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>", "table")


def _line(cells: Sequence[str], best: int | None) -> str:
    name, *others = map(html.escape, cells)
    shown = "".join(
        f'<td class="best">{cell} <abbr title="best of these runs">★</abbr></td>' if i == best else f"<td>{cell}</td>"
        for i, cell in enumerate(others, 1)
    )
    return f'<tr><th scope="row">{name}</th>{shown}</tr>'


def facts(values: Mapping[str, str]) -> str:
    """Names and what they are, as plain text."""
    pairs = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in values.items())
    return f"<dl>{pairs}</dl>"


def details(summary: str, text: str) -> str:
    """Plain text of several lines that opens when it is asked for."""
    shown = _scrolled(f"<pre>{html.escape(text)}</pre>", summary)
    return f"<details><summary>{html.escape(summary)}</summary>{shown}</details>"


def grid(plots: Iterable[str]) -> str:
    """Plots beside each other, as many as fit."""
    return f'<div class="plots">{"".join(plots)}</div>'


def sheet(title: str, rows: Sequence[tuple[str, Frames]], count: int = STRIP) -> str:
    """A clip in rows: `count` evenly spread frames of each.

    Args:
        title: plain text above.
        rows: what each is, and its frames (t, h, w, 3), of one length.
        count: frames shown.
    """
    picks = evenly(len(rows[0][1]), count)
    lines = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{image(strip(frames[picks]), f"{title}: {name}")}</td></tr>'
        for name, frames in rows
    )
    body = _scrolled(f'<table class="sheet"><tbody>{lines}</tbody></table>', title)
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{body}</figure>"


def strip(frames: Frames) -> Frames:
    """Frames (t, h, w, 3) side by side, with nothing between them: (h', w', 4)."""
    size = shown_size(frames.shape[1:3], _SIDE, (_MOST, _MOST))
    shown = [np.dstack([resized(frame, size), np.full(size, 255, np.uint8)]) for frame in frames]
    return np.concatenate([np.pad(frame, ((0, 0), (0, _GAP), (0, 0))) for frame in shown], axis=1)[:, :-_GAP]


def image(pixels: Frames, alt: str) -> str:
    """(h, w, 3 or 4) as an image that is part of the page, exact to the bit."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    h, w = pixels.shape[:2]
    return f'<img width="{w}" height="{h}" alt="{html.escape(alt)}" src="data:image/webp;base64,{data}">'


def _scrolled(body: str, what: str) -> str:
    """What may be wider than the screen scrolls by itself, by keyboard too."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(what)}">{body}</div>'


_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { color-scheme: light dark; --page: #ffffff; --ink: #1b1f24; --quiet: #57606a; --line: #d0d7de; --best: #e3f0fb;
  --line-1: #0072b2; --line-2: #d55e00; --line-3: #009e73; --line-4: #cc79a7; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171b; --ink: #e6e9ed; --quiet: #a3adb8; --line: #3a424c; --best: #17344d;
    --line-1: #56b4e9; --line-2: #f0803c; --line-3: #2dbd94; --line-4: #e5a3c8; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 90rem; padding: 1rem clamp(0.75rem, 3vw, 2.5rem) 4rem; background: var(--page);
  color: var(--ink); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0.5rem 0 0; font-size: clamp(1.4rem, 4vw, 2rem); line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 3rem 0 0; padding-top: 0.5rem; border-top: 1px solid var(--line); font-size: 1.25rem; }
p, figcaption { max-width: 48rem; }
.caption, .about, figcaption, dt { color: var(--quiet); }
.caption, .about { margin: 0.25rem 0 1rem; }
nav { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; }
a { color: inherit; }
:focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
figure { margin: 0 0 1.5rem; }
.plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
.plots figure { max-width: 36rem; }
svg { display: block; width: 100%; height: auto; font-family: inherit; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.75rem 0.25rem 0; text-align: right; border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
th:first-child { position: sticky; left: 0; text-align: left; font-weight: 400; background: var(--page); }
thead th { font-weight: 600; }
td.best { font-weight: 700; background: var(--best); }
abbr { text-decoration: none; }
.sheet th, .sheet td { padding: 1px 0.5rem 1px 0; border: 0; }
.sheet th { font-size: 0.85rem; }
.sheet img { display: block; width: auto; height: clamp(3.5rem, 7vw, 6rem); image-rendering: pixelated; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: 0.25rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; padding: 0.5rem 0; }
pre { font-size: 0.8rem; }
@media print { .scroll { overflow: visible; } }
</style>
</head>
<body>
<h1>$title</h1>
<p class="about">$about</p>
<nav aria-label="sections">$links</nav>
<main>
$parts</main>
<script type="application/json" id="figures">$data</script>
</body>
</html>
""")
