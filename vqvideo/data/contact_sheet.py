"""A picture of what an import would store: a row for each recording, its first frames with the actions between them."""

from __future__ import annotations

from io import BytesIO
from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw

from vqvideo.data.config import ImportConfig
from vqvideo.data.formats import Moment
from vqvideo.data.import_plan import Plan, Work
from vqvideo.data.kept import fitted, thinned
from vqvideo.storage import files

_ROWS, _COLUMNS = 6, 8
_APART = 4
"""Frames from one that is shown to the next; a game hardly moves from each to the next."""
_SIDE = 128
"""Pixels of the longer side of a frame in the picture."""
_LINE = 14
"""Pixels of a line of text."""


def contact_sheet(plan: Plan, options: ImportConfig) -> Path:
    """Draws it, and returns the file: beside the folder of the store, which it does not touch.

    Under each frame stands its number in the recording and the action that led to it.

    Raises:
        InputError: a recording cannot be decoded.
        DiskError: no room.
    """
    h, w = plan.meta.frame_size
    larger = max(1, _SIDE // max(h, w))
    tile = (w * larger, h * larger + 2 * _LINE)
    shown = plan.work[:_ROWS]
    sheet = Image.new("RGB", (_COLUMNS * tile[0], len(shown) * (tile[1] + _LINE)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, work in enumerate(shown):
        top = row * (tile[1] + _LINE)
        pen.text((2, top), work.name, "black")
        for column, (number, moment) in enumerate(_spread(work, options)):
            frame = Image.fromarray(fitted(moment.frame, (h, w), options.fit))
            at = (column * tile[0], top + _LINE)
            sheet.paste(frame.resize((w * larger, h * larger), Image.Resampling.NEAREST), at)
            pen.text((at[0] + 2, at[1] + h * larger), f"{number}\n{_action(moment) if number else ''}", "black")
    path = options.folder.with_suffix(".png")
    with BytesIO() as png:
        sheet.save(png, "PNG")
        files.make_folder(path.parent)
        files.write_file(path, png.getvalue())
    return path


def _spread(work: Work, options: ImportConfig) -> list[tuple[int, Moment]]:
    """Some moments of a recording with their numbers."""
    kept = thinned(work.recording.moments(work.begin), work.every, options.aggregate)
    return [(work.begin + number, moment) for number, moment in islice(kept, 0, _COLUMNS * _APART, _APART)]


def _action(moment: Moment) -> str:
    values = [f"{value:.3g}" for value in moment.action[:3]]
    return " ".join(values) + (" .." if len(moment.action) > 3 else "")
