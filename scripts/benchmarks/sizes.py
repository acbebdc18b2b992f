"""The benchmark of frame sizes: how time and memory of every stage grow. Options and order of events."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vqvideo.data.config import height_and_width
from vqvideo.errors import at_least
from vqvideo.scripts.benchmarks.subject import Benchmark, check_streams

if TYPE_CHECKING:
    from vqvideo.experiment.config import Experiment
    from vqvideo.scripts.benchmarks.report import Report

CONFIG = Path(__file__).parents[2] / "configs" / "car_racing.yaml"


@dataclass(frozen=True)
class SizesBenchmark(Benchmark):
    """Trainings, coding and dreams for several frame sizes: time, memory, tokens, as an experiment would get them."""

    config: Path = CONFIG
    """Experiment whose models, batches and clips are measured."""
    sizes: tuple[str, ...] = ("64", "96", "128", "256")
    """Frame sizes in pixels: 64 for squares, 48x96 for a height of 48 and a width of 96."""
    as_named: bool = False
    """Takes the backbone as the experiment names it, however many tokens it makes of large frames."""
    streams: tuple[int, ...] = (1, 16)
    """Dreams at once."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of trainings and dreams; encoding is always fp32."""
    threads: int | None = None
    """CPU threads; by default one per core."""
    rounds: int = 3
    """Turns that each size has; figures are medians over them."""
    round_seconds: float = 0.05
    """How long a turn lasts at least; short calls are repeated."""

    def __post_init__(self) -> None:
        at_least(self, "--", rounds=1, threads=1)
        check_streams(self.streams)
        for size in self.sizes:
            height_and_width(size)

    def measure(self) -> Report:
        from vqvideo.experiment.config import Experiment
        from vqvideo.scripts.benchmarks.report import Report, instruction_sets
        from vqvideo.scripts.benchmarks.size_costs import measure_sizes, tables
        from vqvideo.scripts.benchmarks.timing import devices_with_threads
        from vqvideo.storage.records import read_yaml, typed

        cfg = replace(self, rounds=1, round_seconds=0.0, sizes=("16", "32"), streams=(1,)) if self.quick else self
        experiment = typed(Experiment, read_yaml(self.config), str(self.config))
        experiment = smaller(experiment) if self.quick else experiment
        report = Report("sizes", {**asdict(replace(cfg, json=None)), "config": self.config.name})
        batches = f"{experiment.vqvae.train.batch} clips, the prior's {experiment.prior.train.batch}"
        notes = [
            f"a training step of the tokenizer takes {batches}; encode and decode take one",
            "frames/s of the prior's training are those that a step learns to predict",
            instruction_sets(),
        ]
        report.notes.extend(notes)
        for device, threads in devices_with_threads(self.threads, quick=self.quick):
            records = measure_sizes(cfg, experiment, threads, device)
            report.tables.extend(tables(records, f"{device.type}, {threads} thread(s), {self.precision}"))
            report.results[device.type] = {"threads": threads, "sizes": records}
        return report


def smaller(cfg: Experiment) -> Experiment:
    """For a smoke run."""
    vqvae = replace(cfg.vqvae, latent_steps=2, train=replace(cfg.vqvae.train, batch=1))
    prior = replace(cfg.prior, latent_steps=2, train=replace(cfg.prior.train, batch=1))
    return replace(cfg, vqvae=vqvae, prior=prior)
