"""Makes small files of films with a tokenizer's codes and a prior's expectations, and films of them again.

    python scripts/compress.py encode film.mp4 --resize crop        into film.vqv, by the world that comes along
    python scripts/compress.py encode data/car_racing --episode 3   an episode of a store, with its actions
    python scripts/compress.py info film.vqv
    python scripts/compress.py decode film.vqv                      into film_decoded.mp4

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
from vqvideo.errors import InputError

if TYPE_CHECKING:
    from vqvideo.codec import Codec
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
    """Latent steps that are coded together: fewer make larger files, in which decoding can begin at more places."""

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
    """Makes a film of a .vqv file; of one with actions also a table of them."""

    source: tyro.conf.Positional[Path]
    """A .vqv file."""
    out: tyro.conf.Positional[Path | None] = None
    """The new film; by default beside the source, ending in _decoded.mp4. One that ends in .mkv keeps every bit."""
    model: tyro.conf.OmitArgPrefixes[Model] = Model()
    """By which world: the one that the file was made with."""

    def run(self) -> None:
        """Decodes."""
        from vqvideo.codec import read_header
        from vqvideo.data.exporting.films import LOSSLESS, NEARLY, Film
        from vqvideo.storage import files

        out = self.out or self.source.with_name(f"{self.source.stem}_decoded.mp4")
        encoding = LOSSLESS if out.suffix == ".mkv" else NEARLY
        if out.suffix != encoding.ending:
            raise InputError(f"{out}: expected a name that ends in .mp4, or in .mkv for all bits")
        codec, began, count = self.model.codec(), time.perf_counter(), 0
        with opened(self.source) as file:
            header = read_header(file)
            file.seek(0)
            rows: list[list[float]] = []
            with files.replacing(out) as temporary:
                film = Film(temporary, header.frame_size, header.frames_per_second, encoding)
                try:
                    for frames, actions in codec.decode_with_actions(file):
                        film.add(frames)
                        count += len(frames)
                        rows += actions.tolist()
                finally:
                    film.close()
        if header.actions:
            self._write_actions(out.with_suffix(".csv"), rows[1:], header.actions)
        print(f"{out}: {count} frames, {count / (time.perf_counter() - began):.0f} frames/s")

    def _write_actions(self, path: Path, rows: list[list[float]], columns: int) -> None:
        """A row per frame, with the action that is taken there; the last frame's is empty."""
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
