"""Start clips of a page: the film goes on where the context ends."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_models import SIZE, tiny_store, tiny_world

from vqvideo.data.clips import Clips
from vqvideo.export.site_starts import starts


def test_films_begin_with_the_newest_frame_of_the_context(tmp_path: Path) -> None:
    world, clips = tiny_world(), Clips(tiny_store(tmp_path / "data"), "held_out", 13)
    for start, index in zip(starts(world, clips, 2, context=3), clips.spread(2), strict=True):
        frames = clips[index]["frames"].movedim(1, -1).numpy().astype(float)
        film = np.asarray(Image.open(io.BytesIO(start.files[start.record["film"]])))
        tiles = film.reshape(3, SIZE, 3, SIZE, 3).swapaxes(1, 2).reshape(9, SIZE, SIZE, 3)
        # WebP loses something, but less than lies between two frames.
        errors = [np.abs(tiles[:8] - frames[first : first + 8]).mean() for first in range(6)]
        assert int(np.argmin(errors)) == 4
        assert start.record["actions"] == clips[index]["actions"][4:].tolist()
        codes = world.vqvae.encode(clips[index]["frames"][None, :5])[0]
        assert start.record["codes"] == codes.tolist()
