"""Makes a store of squares cut from pictures and films, for tokenizers of stills.

    python scripts/cut_stills.py astronaut.png chelsea.png china.jpg bikes.mp4 --held-out chelsea.png --out data/stills

Each picture gives so many squares, of all sizes from the stored one up to its shorter side, at places drawn at random;
of a film they are cut from frames all over it. A picture is an episode whose frames are its squares; one that is held
out is held out with all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from vqvideo import cli

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from vqvideo.data.episode import Episode
    from vqvideo.data.index import StoreMeta

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class Options:
    """What to cut."""

    sources: tyro.conf.Positional[tuple[Path, ...]]
    """Pictures (PNG, JPEG, WebP, BMP) and films."""
    held_out: tuple[str, ...] = ()
    """File names of those that are held out for evaluation."""
    out: Path = Path("data/stills")
    """Folder of the store."""
    side: int = 128
    """Of the squares in pixels."""
    squares: int = 64
    """Squares of each picture."""
    seed: int = 0
    """Everything follows from it."""


def main() -> None:
    """Reads the command line and cuts."""
    options = tyro.cli(Options, description=__doc__)
    import numpy as np

    from vqvideo.data.store import StoreWriter
    from vqvideo.errors import InputError, at_least

    at_least(options, "--", side=8, squares=2, seed=0)
    names = [path.name for path in options.sources]
    if len(set(names)) < len(names):
        raise InputError(f"{len(names)} pictures of {len(set(names))} names, expected another name for each")
    if unknown := sorted(set(options.held_out) - set(names)):
        raise InputError(f"--held-out {' '.join(unknown)}: expected some of {', '.join(names)}")
    with StoreWriter.open(options.out, _meta(options.side, options.seed)) as writer:
        for index, path in enumerate(options.sources):
            if index not in writer.indices:
                rng = np.random.default_rng((options.seed, index))
                frames = np.stack(list(squares(path, options.squares, options.side, rng)))
                split = "held_out" if path.name in options.held_out else "train"
                writer.add(index, _episode(frames, options.seed), split)
    print(f"{options.out}: squares of {len(names)} pictures, {len(options.held_out)} of them held out")


def squares(path: Path, count: int, side: int, rng: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    """Squares (side, side, 3) of a picture or a film."""
    import numpy as np
    from PIL import Image as Images

    from vqvideo.errors import InputError

    pictures = list(_pictures(path, count))
    for number in range(count):
        picture = pictures[number * len(pictures) // count]
        shorter = min(picture.size)
        if shorter < side:
            raise InputError(f"{path}: {picture.height} x {picture.width} pixels, expected at least {side} a side")
        # As many of each size: the logarithm is drawn evenly.
        length = int(side * (shorter / side) ** rng.random())
        left, top = (int(rng.integers(extent - length + 1)) for extent in picture.size)
        square = picture.crop((left, top, left + length, top + length))
        yield np.asarray(square.resize((side, side), Images.Resampling.LANCZOS))


def _pictures(path: Path, most: int) -> Iterator[Image.Image]:
    """The picture, or so many frames all over a film."""
    from PIL import Image as Images

    from vqvideo.data.decoded_image import decoded
    from vqvideo.data.formats.videos import Film

    if path.suffix.lower() in _ENDINGS:
        yield decoded(str(path), str(path))
        return
    film = Film(path)
    step = max(1, film.facts.frames // most)
    for number, frame in enumerate(film.frames()):
        if number % step == 0:
            yield Images.fromarray(frame)


def _meta(side: int, seed: int) -> StoreMeta:
    from vqvideo.data.index import StoreMeta
    from vqvideo.spaces import ActionSpace

    return StoreMeta(
        env_id="stills",
        env_spec=None,
        action_space=ActionSpace.none(),
        frame_size=(side, side),
        fps=1.0,
        action_repeat=1,
        skip_first=0,
        policy="none",
        seed=seed,
        held_out_every=0,
        versions={},
    )


def _episode(frames: NDArray[np.uint8], seed: int) -> Episode:
    """Squares one after the other, between which nobody does anything."""
    import numpy as np

    from vqvideo.data.episode import Episode

    steps = len(frames) - 1
    ends = np.zeros((2, steps), bool)
    ends[1, -1] = True
    return Episode(frames, np.zeros((steps, 0)), np.zeros(steps, np.float32), ends[0], ends[1], seed)


if __name__ == "__main__":
    cli.run(main)
