"""Makes small files of films with a tokenizer's codes and a prior's expectations, and films of them again.

    python scripts/compress.py encode film.mp4 --resize crop        into film.vqv, by the world that comes along
    python scripts/compress.py encode data/car_racing --episode 3   an episode of a store, with its actions
    python scripts/compress.py info film.vqv
    python scripts/compress.py decode film.vqv                      into film_decoded.mp4
    python scripts/compress.py decode film.vqv --from-second 20 --frames 50     into film_from_500.mp4

The codes come back exactly, on any machine; the frames are what the tokenizer makes of them. Needs vqvideo[codec].
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import tyro

from vqvideo import cli
from vqvideo.errors import InputError, at_least

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from vqvideo.codec import Codec, Header
    from vqvideo.data.exporting.films import Encoding
    from vqvideo.data.sources import Source


@dataclass(frozen=True)
class Model:
    """What codes are made and expected by."""

    world: str = "carracing"
    """Folder of a world model, such as runs/car_racing/world, or the name of one that comes along."""
    tokenizer_alone: bool = False
    """Code with how often codes come in place of the prior: for films without actions where the world has some."""

    def codec(self, chunk: int = 128) -> Codec:
        """That of the world."""
        from vqvideo import WorldModel
        from vqvideo.codec import Codec

        world = WorldModel.from_pretrained(self.world).eval()
        return Codec(world.vqvae if self.tokenizer_alone else world, chunk)


@dataclass(frozen=True)
class Encode:
    """Makes a .vqv file of a film, or of an episode of a store."""

    source: tyro.conf.Positional[Path]
    """A film, or the folder of a store."""
    out: tyro.conf.Positional[Path | None] = None
    """The new file; by default beside the source, ending in .vqv."""
    model: tyro.conf.OmitArgPrefixes[Model] = Model()
    """By which world."""
    episode: int = 0
    """Which episode of a store."""
    resize: Literal["crop", "pad", "stretch"] | None = None
    """What to do with a film of another size than the tokenizer takes; by default it is refused."""
    fps: float | None = None
    """Frames per second of a film that does not say it."""
    chunk: int = 128
    """Latent steps coded together. Decoding can begin at each chunk; shorter ones make larger files: CarRacing's
    codes take 2% more at 128 than in a single chunk, 14% at 32, and are as good."""

    def run(self) -> None:
        """Encodes, and says what became of it."""
        from vqvideo.storage import files

        codec = self.model.codec(self.chunk)
        out, source = self.out or self.source.with_suffix(".vqv"), self._source(codec)
        began = time.perf_counter()
        with files.replacing(out) as temporary, open(temporary, "wb") as file:
            summary = codec.encode(source.frames, source.fps, file, source.actions, source.name)
        seconds, plain = time.perf_counter() - began, summary.plain_bits / summary.frames
        acting = 8 * summary.action_bytes / summary.frames
        print(
            f"{out}: {summary.frames} frames in {out.stat().st_size} bytes, {summary.bits_per_frame:.1f} bits a frame "
            f"({summary.bits_per_frame / plain:.1%} of the plain codes' {plain:.0f})"
            f"{f' and {acting:.1f} for the actions' if acting else ''}, {summary.frames / seconds:.0f} frames/s"
        )

    def _source(self, codec: Codec) -> Source:
        from vqvideo.data import sources

        if not self.source.exists():
            raise InputError(f"{self.source}: no such film or store")
        if self.source.is_dir():
            return sources.episode(self.source, self.episode)
        return sources.film(self.source, codec.vqvae.frame_size, self.resize, self.fps)


@dataclass(frozen=True)
class Decode:
    """Makes a film of a .vqv file, or of a part of it; of one with actions also a table of them."""

    source: tyro.conf.Positional[Path]
    """A .vqv file."""
    out: tyro.conf.Positional[Path | None] = None
    """The new film; by default beside the source, ending in _decoded.mp4, a part in _from_N.mp4. One that ends in .mkv
    keeps every bit."""
    model: tyro.conf.OmitArgPrefixes[Model] = Model()
    """By which world: the one that the file was made with."""
    from_frame: int = 0
    """The first frame that is wanted, from 0 on. Of those before, only what its own chunk holds is decoded."""
    from_second: float | None = None
    """The same in seconds, in place of --from-frame."""
    frames: int | None = None
    """How many frames are wanted; by default all that follow."""

    def run(self) -> None:
        """Decodes."""
        from vqvideo.codec.container import part, read

        self._encoding()
        with opened(self.source) as file:
            header, chunks = read(file)
            first = self._first(header.frames_per_second)
            # Damage, and frames that are not there, are found before anything is decoded.
            for _ in part(chunks, first, self.frames):
                pass
            file.seek(0)
            kind = f"from_{first}" if first or self.frames else "decoded"
            out = self.out or self.source.with_name(f"{self.source.stem}_{kind}.mp4")
            codec, began = self.model.codec(), time.perf_counter()
            actions = self._write_film(out, header, codec.decode_with_actions(file, first, self.frames))
        if header.actions:
            self._write_actions(out.with_suffix(".csv"), actions[1:], header.actions)
        print(f"{out}: {len(actions)} frames, {len(actions) / (time.perf_counter() - began):.0f} frames/s")

    def _encoding(self) -> Encoding:
        from vqvideo.data.exporting.films import LOSSLESS, NEARLY

        suffix = self.out.suffix if self.out else NEARLY.ending
        if suffix not in (NEARLY.ending, LOSSLESS.ending):
            raise InputError(f"{self.out}: expected a name that ends in .mp4, or in .mkv for all bits")
        return LOSSLESS if suffix == LOSSLESS.ending else NEARLY

    def _first(self, fps: float) -> int:
        """Number of the first frame that is wanted."""
        at_least(self, "--", from_frame=0, from_second=0, frames=1)
        if self.from_second is None:
            return self.from_frame
        if self.from_frame:
            raise InputError("--from-frame and --from-second both say where to begin: give one")
        # The frame shown then: 4.1 seconds at 30 frames per second are frame 123, and 122.99999999999999 in floats.
        return int(min(self.from_second * fps + 1e-6, 1e18))

    def _write_film(
        self, out: Path, header: Header, pieces: Iterator[tuple[NDArray[np.uint8], NDArray[np.float64]]]
    ) -> list[list[float]]:
        """Returns the actions that led to each frame."""
        from vqvideo.data.exporting.films import Film
        from vqvideo.storage import files

        actions: list[list[float]] = []
        with files.replacing(out) as temporary:
            film = Film(temporary, header.frame_size, header.frames_per_second, self._encoding())
            try:
                for frames, acting in pieces:
                    film.add(frames)
                    actions += acting.tolist()
            finally:
                film.close()
        return actions

    def _write_actions(self, path: Path, rows: list[list[float]], columns: int) -> None:
        """A row per frame, with the action that is taken there; the last one is empty, for it leads out of the film."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([f"action_{number}" for number in range(columns)])
            writer.writerows([*rows, [""] * columns])


@dataclass(frozen=True)
class Info:
    """Says what is in a .vqv file."""

    source: tyro.conf.Positional[Path]
    """A .vqv file."""

    def run(self) -> None:
        """Reads all of it and checks it, without a model."""
        from vqvideo.codec.container import read

        with opened(self.source) as file:
            header, coming = read(file)
            chunks = list(coming)
        frames, size = sum(chunk.frames for chunk in chunks), self.source.stat().st_size
        for name, value in vars(header).items():
            print(f"{name:18s} {value}")
        print(f"{'frames':18s} {frames} in {len(chunks)} chunks, {8 * size / max(1, frames):.1f} bits each")
        every = chunks[0].frames if chunks[1:] else 0
        where = f"every {every} frames ({every / header.frames_per_second:.1f} s)" if every else "at frame 0 alone"
        print(f"{'decoding begins':18s} {where}: a frame takes up to {header.chunk - 1} latent steps before it")


def opened(path: Path) -> BinaryIO:
    """A file to read. InputError if there is none."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return open(path, "rb")


def main() -> None:
    """Reads the command line, and does what it says."""
    chosen = tyro.extras.subcommand_cli_from_dict(
        {"encode": Encode, "decode": Decode, "info": Info}, description=__doc__
    )
    chosen.run()


if __name__ == "__main__":
    cli.run(main)
