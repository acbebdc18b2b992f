"""The benchmark of steps: where the time of training and imagining goes. Options and order of events."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vqvideo.data.config import height_and_width
from vqvideo.errors import at_least
from vqvideo.scripts.benchmarks.sizes import CONFIG, smaller
from vqvideo.scripts.benchmarks.subject import Benchmark, check_streams

if TYPE_CHECKING:
    from vqvideo.scripts.benchmarks.report import Report


@dataclass(frozen=True)
class StepsBenchmark(Benchmark):
    """Where the time of a step goes, in both trainings and in a dream: part by part, and by kind of operation."""

    config: Path = CONFIG
    """Experiment whose models, batches and clips are measured."""
    frame_size: str = "64"
    """In pixels: 64 for squares, 48x96 for a height of 48 and a width of 96."""
    streams: tuple[int, ...] = (1, 16)
    """Dreams at once."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of trainings and dreams."""
    threads: int | None = None
    """CPU threads; by default one per core."""
    rounds: int = 9
    """Steps that are timed; figures are medians over them. A third as many are profiled."""

    def __post_init__(self) -> None:
        at_least(self, "--", rounds=1, threads=1)
        check_streams(self.streams)
        height_and_width(self.frame_size)

    def measure(self) -> Report:
        from vqvideo.experiment.config import Experiment
        from vqvideo.scripts.benchmarks.report import Report, instruction_sets
        from vqvideo.scripts.benchmarks.step_profile import measure_steps, tables
        from vqvideo.scripts.benchmarks.timing import devices_with_threads
        from vqvideo.storage.records import read_yaml, typed

        cfg = replace(self, rounds=1, frame_size="16", streams=(1,)) if self.quick else self
        experiment = typed(Experiment, read_yaml(self.config), str(self.config))
        experiment = smaller(experiment) if self.quick else experiment
        report = Report("steps", {**asdict(replace(cfg, json=None)), "config": self.config.name})
        notes = [
            "the parts are timed one after the other inside of the step, without a profiler",
            "the kinds of operation are shares of the time inside of operators, by torch.profiler; Python between them "
            "is the rest of a step that the profiler slows down, and an upper bound",
            instruction_sets(),
        ]
        report.notes.extend(notes)
        for device, threads in devices_with_threads(self.threads, quick=self.quick):
            records = measure_steps(cfg, experiment, threads, device)
            report.tables.extend(tables(records, f"{device.type}, {threads} thread(s), {self.precision}"))
            report.results[device.type] = {"threads": threads, "steps": records}
        return report
