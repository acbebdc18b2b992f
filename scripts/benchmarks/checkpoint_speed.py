"""Seconds to save and to load a training state, each way in turn, and what our save goes into."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from vqvideo.scripts.benchmarks.checkpoint_savers import OURS, PLAIN, SAVERS, Saver, Shapes, loaders
from vqvideo.scripts.benchmarks.memory import peak_memory
from vqvideo.scripts.benchmarks.report import Table, megabytes
from vqvideo.scripts.benchmarks.timing import Timing, Work, take_turns
from vqvideo.storage import files
from vqvideo.storage.checkpoint import tensor_bytes

CPU = torch.device("cpu")
PIECES = ("serialise", "write and sync", "hash", "rename")
"""What our save goes into."""
_COLUMNS = ("state, contestant", "s", "quartiles", f"times {PLAIN}")
_WARM_UP = 2
"""Calls that `take_turns` makes before the first turn."""


@dataclass
class Settled:
    """A save that times itself, once the disk has written what others left it to write: a contestant that does not
    wait for its bytes would otherwise be paid for by the next one.
    """

    save: Work
    """What is timed."""
    seconds: list[float] = field(default_factory=list)
    """Of each call."""

    def __call__(self) -> None:
        os.sync()
        began = time.perf_counter()
        self.save()
        self.seconds.append(time.perf_counter() - began)

    @property
    def timing(self) -> Timing:
        """Without the calls before the first turn."""
        return Timing(tuple(self.seconds[_WARM_UP:]), calls=1)


def measure_saving(shapes: Shapes, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """A record for each way to save, all in one process. Accelerate leaves state behind in it."""
    with TemporaryDirectory(dir=folder) as place:
        entries = {name: Saver(name, shapes, Path(place, str(i))) for i, name in enumerate(SAVERS)}
        for entry in entries.values():
            entry.folder.mkdir()
        settled = {name: Settled(entry.prepare(CPU)) for name, entry in entries.items()}
        take_turns(settled, CPU, rounds, round_seconds=0.0)
    timings = {name: work.timing for name, work in settled.items()}
    return _records(shapes, timings)


def measure_peak(shapes: Shapes, name: str, folder: Path, cpu_threads: int) -> int:
    """Bytes that a save takes at its peak beside the state itself, in a process of its own."""
    with TemporaryDirectory(dir=folder) as place:
        return peak_memory(Saver(name, shapes, Path(place)), CPU, cpu_threads)


def measure_pieces(shapes: Shapes, folder: Path, rounds: int) -> dict[str, float]:
    """Median seconds of what our save goes into, one after the other on files of their own."""
    state, found = shapes.state(), []
    for _ in range(rounds):
        with TemporaryDirectory(dir=folder) as place:
            os.sync()
            found.append(_pieces([state.model, state.optimizer, state.average], Path(place, "new")))
    return {piece: median(seconds[i] for seconds in found) for i, piece in enumerate(PIECES)}


def _pieces(parts: list[dict[str, torch.Tensor]], folder: Path) -> list[float]:
    """Seconds of each of `PIECES`."""
    marks = [time.perf_counter()]
    data = [tensor_bytes(part) for part in parts]
    marks.append(time.perf_counter())
    folder.mkdir()
    for number, content in enumerate(data):
        files.write_file(folder / str(number), content)
    marks.append(time.perf_counter())
    for number in range(len(data)):
        files.sha256_file(folder / str(number))
    marks.append(time.perf_counter())
    files.swap_in(folder, folder.with_name("committed"))
    marks.append(time.perf_counter())
    return [after - before for before, after in pairwise(marks)]


def measure_loading(shapes: Shapes, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """A record for each way to load, from files that the system still has in memory."""
    with TemporaryDirectory(dir=folder) as place:
        timings = take_turns(loaders(shapes, Path(place)), CPU, rounds, round_seconds=0.0)
    return _records(shapes, timings)


def _records(shapes: Shapes, timings: Mapping[str, Timing]) -> list[dict[str, Any]]:
    return [
        {
            "state": shapes.name,
            "contestant": name,
            "seconds": timing.median,
            "seconds_quartiles": timing.spread,
            "seconds_rounds": timing.rounds,
            "times_as_long": timing.median / timings[PLAIN].median,
        }
        for name, timing in timings.items()
    ]


def saving_table(records: list[dict[str, Any]]) -> Table:
    """The ways to save side by side."""
    title = "seconds to save a training state: model, AdamW's moments, averaged weights"
    table = Table(title, (*_COLUMNS, "peak MB beside the state"))
    for record in records:
        peak = record.get("peak_bytes")
        table.rows.append((*_cells(record), "" if peak is None else megabytes(peak)))
    return table


def loading_table(records: list[dict[str, Any]]) -> Table:
    """The ways to load side by side."""
    title = f"seconds to load it again from the page cache ({OURS} compares every file with its SHA-256)"
    return Table(title, _COLUMNS, [_cells(record) for record in records])


def pieces_table(pieces: Mapping[str, Mapping[str, float]]) -> Table:
    """What our save of each state goes into."""
    rows = [(name, *(f"{seconds[piece]:.3f}" for piece in PIECES)) for name, seconds in pieces.items()]
    return Table(f"seconds of the parts of a save by {OURS}", ("state", *PIECES), rows)


def _cells(record: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = record["seconds_quartiles"]
    name = f"{record['state']}, {record['contestant']}"
    return name, f"{record['seconds']:.3f}", f"{low:.3f}-{high:.3f}", f"{record['times_as_long']:.2f}"
