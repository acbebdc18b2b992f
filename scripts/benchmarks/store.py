"""The benchmark of large stores: what an import, opening, clips, encoding and sampling take, and how it grows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from vqvideo.errors import InputError
from vqvideo.scripts.benchmarks.subject import Benchmark

if TYPE_CHECKING:
    from vqvideo.scripts.benchmarks.report import Report, Table

FILM = 10_000
"""Frames of each film that is imported."""

STAGES = ("import", "open", "clips", "encode", "codes")
RATES = {"frames imported/s": "import", "clips/s": "clips", "frames encoded/s": "encode", "clips of codes/s": "codes"}


@dataclass(frozen=True)
class StoreBenchmark(Benchmark):
    """Imports films of 96 x 64 pixels, opens the store, draws clips, encodes it and samples codes: time and memory."""

    frames: tuple[int, ...] = (10_000, 100_000)
    """Sizes of the stores; 1000000 takes about 10 GB of disk and half an hour."""
    draws: int = 5_000
    """Clips that are drawn at random of each store."""
    folder: Path | None = None
    """Where films and stores go while it lasts; by default the folder for temporary files. Name one of a shared file
    system to measure that."""

    def __post_init__(self) -> None:
        if not self.frames or min(self.frames) < 2 or self.draws < 1:
            raise InputError(f"--frames {self.frames} --draws {self.draws}, expected at least 2 frames and a clip")

    def measure(self) -> Report:
        from vqvideo.scripts.benchmarks.report import Report, instruction_sets
        from vqvideo.scripts.benchmarks.store_stages import write_film

        cfg = replace(self, frames=(300,), draws=5) if self.quick else self
        report = Report("store", asdict(replace(cfg, json=None, folder=None)))
        records = []
        with TemporaryDirectory(dir=cfg.folder, prefix="vqvideo-benchmark-") as folder:
            film = Path(folder) / "film.mp4"
            write_film(film, min(FILM, max(cfg.frames)))
            records = [_measured(cfg, film, frames) for frames in cfg.frames]
        report.results["cpu"] = records
        report.tables.append(_table(records))
        notes = [
            "memory is the peak of the largest process of a stage, with all that it imports",
            "clips have 9 frames, come from anywhere, and none is kept; read is what a clip takes from the file system",
            "encoded with an untrained tokenizer of 8 x 8 cells, so that its own time counts little",
            instruction_sets(),
        ]
        report.notes.extend(notes)
        return report


def _measured(cfg: StoreBenchmark, film: Path, frames: int) -> dict[str, Any]:
    """All stages on a store of so many frames."""
    from vqvideo.scripts.benchmarks import store_stages as stages

    films = film.parent / f"films_{frames}"
    films.mkdir()
    for number in range(-(-frames // FILM)):
        # The same film under many names.
        (films / f"{number:04d}.mp4").hardlink_to(film)
    store = film.parent / f"store_{frames}"
    found: dict[str, Any] = {"frames": frames}
    for name, stage, arguments in (
        ("import", stages.import_films, (films, store)),
        ("open", stages.open_store, (store,)),
        ("clips", stages.draw_clips, (store, cfg.draws)),
        ("encode", stages.encode, (store,)),
        ("codes", stages.draw_codes, (store, cfg.draws)),
    ):
        found[name] = stages.in_new_process(stage, *arguments)
    return found


def _table(records: list[dict[str, Any]]) -> Table:
    from vqvideo.scripts.benchmarks.report import Table

    def cells(record: dict[str, Any]) -> tuple[str, ...]:
        rates = [f"{record[name]['per_second']:,.0f}" for name in RATES.values()]
        memory = [f"{record[name]['peak_bytes'] / 2**20:.0f}" for name in STAGES]
        on_disk = f"{record['import']['store_bytes'] / 2**30:.2f}"
        opened = f"{record['open']['seconds']:.2f}"
        read = f"{record['clips']['read_bytes'] / record['clips']['count'] / 2**10:.0f}"
        return (f"{record['frames']:,}", on_disk, opened, *rates, read, *memory)

    columns = ("frames", "GiB", "open s", *RATES, "KiB read a clip", *(f"{name} MiB" for name in STAGES))
    return Table("Stores of 64 x 64 pixels, imported from H.264", columns, [cells(record) for record in records])
