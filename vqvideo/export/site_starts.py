"""Start clips of a page that dreams: their pictures, and what the page must know of them."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vqvideo.data.clips import Clip, Clips
from vqvideo.models.imagination import Imaginer

QUALITY = 90
"""Of films and thumbnails in WebP."""


class Start(NamedTuple):
    """A clip that dreams start from."""

    record: dict[str, Any]
    """As `site.json` has it."""
    files: dict[str, bytes]
    """Its pictures, by file name."""


def starts(world: Imaginer, clips: Clips, count: int, context: int) -> list[Start]:
    """Clips spread over the held-out episodes.

    Args:
        world: whose codes the context is given in.
        clips: of the context and what is shown beside the dream.
        count: how many; fewer where there are fewer.
        context: latent steps that the model sees.
    """
    return [_start(world, clips[index], number, context) for number, index in enumerate(clips.spread(count))]


def _start(world: Imaginer, clip: Clip, number: int, context: int) -> Start:
    seen = world.vqvae.clip_length(context)
    # The first picture of the film is the newest frame of the context.
    film, actions = clip["frames"].movedim(-3, -1).numpy()[seen - 1 :], clip["actions"].numpy()
    columns = int(np.ceil(np.sqrt(len(film))))
    names = f"start-{number:02}.webp", f"start-{number:02}-film.webp"
    record = {
        "label": f"clip {number + 1}",
        "thumbnail": names[0],
        "film": names[1],
        "film_columns": columns,
        "film_frames": len(film),
        "actions": _plain(actions[seen - 1 :]),
        "codes": world.vqvae.encode(clip["frames"][None, :seen])[0].tolist(),
        "context_actions": np.reshape(_plain(actions[: seen - 1]), (context - 1, world.stride, -1)).tolist(),
    }
    return Start(record, dict(zip(names, (webp(film[0]), webp(_tiled(film, columns))), strict=True)))


def _tiled(frames: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Frames (t, h, w, 3) beside and below each other in one picture."""
    _, height, width, _ = frames.shape
    rows = -(-len(frames) // columns)
    sheet = np.zeros((rows * columns, height, width, 3), np.uint8)
    sheet[: len(frames)] = frames
    return sheet.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)


def webp(picture: NDArray[np.uint8]) -> bytes:
    """A picture (h, w, 3) as a file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WebP", quality=QUALITY, method=6)
    return file.getvalue()


def _plain(values: NDArray[np.float32]) -> list[list[float]]:
    """The shortest decimals that are the same in float32."""
    return [[float(str(value)) for value in row] for row in values]
