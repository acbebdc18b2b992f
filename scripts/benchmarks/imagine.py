"""The benchmark of the imagination: how fast a world model dreams, and what of. Options and order of events."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vqvideo.errors import InputError, at_least
from vqvideo.scripts.benchmarks.subject import Benchmark, check_streams

if TYPE_CHECKING:
    import torch

    from vqvideo.experiment.config import Experiment
    from vqvideo.scripts.benchmarks.dreams import Dreams, Trained, Untrained
    from vqvideo.scripts.benchmarks.report import Report

CONFIG = Path(__file__).parents[2] / "configs" / "car_racing.yaml"


@dataclass(frozen=True)
class ImagineBenchmark(Benchmark):
    """Imagined frames/s of every head for several streams, what the time of a step goes into, memory, long dreams."""

    config: Path = CONFIG
    """Experiment whose tokenizer and prior give the shape of the untrained world, and whose sampling is used."""
    world: str | None = None
    """Folder of a trained world, to measure that one with its own head."""
    heads: tuple[str, ...] = ()
    """Heads to measure; all by default."""
    streams: tuple[int, ...] = (1, 16, 64)
    """Dreams at once."""
    steps: int = 10_000
    """Latent steps of the long dream, by the first head."""
    compile: bool = False
    """Measures the world as torch.compile makes it, too, on a GPU also with CUDA graphs. Compiling takes minutes."""
    rounds: int = 5
    """Turns that each contestant has; figures are medians over them."""
    round_seconds: float = 0.05
    """How long a turn lasts at least; short calls are repeated."""

    def __post_init__(self) -> None:
        at_least(self, "--", steps=20, rounds=1)
        check_streams(self.streams)
        if self.world and self.heads:
            raise InputError("--heads with --world: a trained world has one head, the one that it learnt with")

    def measure(self) -> Report:
        from vqvideo.experiment.config import Experiment
        from vqvideo.scripts.benchmarks.report import Report
        from vqvideo.scripts.benchmarks.timing import devices
        from vqvideo.storage.records import read_yaml, to_plain, typed

        cfg = self._quick() if self.quick else self
        experiment = typed(Experiment, read_yaml(self.config), str(self.config))
        worlds = cfg._worlds(experiment)
        sampling = to_plain(experiment.sampling)
        settings = {**asdict(replace(cfg, json=None)), "config": self.config.name, "sampling": sampling}
        report = Report("imagine", settings)
        report.notes.append("frames stay on the device; the shares are of a step, the rest is checks and outcomes")
        for device in devices():
            cfg._measure_on(device, worlds, experiment, report)
        return report

    def _measure_on(
        self, device: torch.device, worlds: dict[str, Trained | Untrained], experiment: Experiment, report: Report
    ) -> None:
        from vqvideo.scripts.benchmarks.imagine_speed import measure_imagination, table
        from vqvideo.scripts.benchmarks.streaming import measure_long_run
        from vqvideo.scripts.benchmarks.timing import thread_counts

        counts, records = thread_counts(device, quick=self.quick), []
        for count in counts:
            own = []
            for streams in self.streams:
                entries = self._entries(device, worlds, experiment, streams)
                own += measure_imagination(entries, count, device, self.rounds, self.round_seconds)
            report.tables.append(table(own, f"imagination, decoding included, {device.type}, {count} thread(s)"))
            records += own
        for record in records:
            if record["reason"]:
                report.notes.append(f"{record['head']} {record['precision']} {record['mode']}: {record['reason']}")
        first = self._entries(device, worlds, experiment, streams=1)[0]
        long_dream, long_table = measure_long_run(first, self.steps, counts[-1], device)
        long_dream |= {"head": first.head, "precision": first.precision}
        report.tables.append(long_table)
        report.results[device.type] = {"imagination": records, "long_dream": long_dream}

    def _worlds(self, experiment: Experiment) -> dict[str, Trained | Untrained]:
        """What dreams, by the name of its head."""
        from vqvideo.scripts.benchmarks.dreams import Trained, Untrained, chosen_heads

        if self.world:
            trained = Trained(self.world)
            return {trained.head: trained}
        model, prior = experiment.vqvae.model, experiment.prior.model
        # Two places of the backbone in height and width are the fewest that attention has something to do with.
        least = 2 * prior.patch * max(model.backbone.strides[1:])
        shape = Untrained(model, prior, (least, least) if self.quick else experiment.record.size)
        return {name: shape.with_head(name) for name in chosen_heads(self.heads)}

    def _entries(
        self, device: torch.device, worlds: dict[str, Trained | Untrained], experiment: Experiment, streams: int
    ) -> list[Dreams]:
        from vqvideo.scripts.benchmarks.dreams import Dreams
        from vqvideo.scripts.benchmarks.tokenizer_speed import precisions

        modes = ["eager"]
        if self.compile:
            modes += ["compiled", "graphs"] if device.type == "cuda" else ["compiled"]
        return [
            Dreams(world, head, streams, precision, mode, experiment.sampling)
            for precision in precisions(device)
            for mode in modes
            for head, world in worlds.items()
        ]

    def _quick(self) -> ImagineBenchmark:
        return replace(self, rounds=2, round_seconds=0.0, steps=20, streams=(min(max(self.streams), 2),))
