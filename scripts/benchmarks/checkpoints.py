"""The benchmark of checkpoints: what it costs that they are durable and checked. Options and order of events."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqvideo.errors import InputError
from vqvideo.scripts.benchmarks.subject import Benchmark

if TYPE_CHECKING:
    from vqvideo.scripts.benchmarks.checkpoint_savers import Shapes
    from vqvideo.scripts.benchmarks.checkpoint_share import Share
    from vqvideo.scripts.benchmarks.report import Report

_CONFIGS = Path(__file__).parents[2] / "configs"


@dataclass(frozen=True)
class CheckpointBenchmark(Benchmark):
    """Seconds to save and load a training state beside the usual ways; the share of checkpoints in a training."""

    configs: tuple[Path, ...] = (_CONFIGS / "car_racing.yaml", _CONFIGS / "tiny_world.yaml")
    """Experiments of which both stages are trained for a few steps, on noise."""
    size: int = 256
    """MiB of a further training state."""
    steps: int = 12
    """Training steps of each stage."""
    folder: Path = Path()
    """Checkpoints are written below this folder, on whose disk all depends, and removed."""
    threads: int = 1
    """CPU threads of those who save. The trainings take as many as they would."""
    rounds: int = 7
    """Turns that each contestant has; figures are medians over them."""

    def __post_init__(self) -> None:
        for name, least in (("size", 4), ("steps", 3), ("threads", 1), ("rounds", 1)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} is {getattr(self, name)}, expected at least {least}")
        if not self.folder.is_dir():
            raise InputError(f"--folder {self.folder}: there is no such folder")

    def measure(self) -> Report:
        from vqvideo.scripts.benchmarks.checkpoint_savers import Shapes
        from vqvideo.scripts.benchmarks.checkpoint_share import share_record, share_table
        from vqvideo.scripts.benchmarks.report import Report

        cfg = self._quick() if self.quick else self
        names = [path.name for path in cfg.configs]
        report = Report("checkpoint", {**asdict(replace(cfg, json=None)), "configs": names, "folder": ""}, {}, [])
        shares, shapes = cfg._shares()
        cfg._compare([Shapes.of_size(cfg.size), *shapes], report)
        report.tables.append(share_table(shares))
        report.results["share"] = [share_record(share) for share in shares]
        report.notes.append(
            "vqvideo and 'synced' return when the bytes are on the disk; the others leave that to the system. Before "
            "each save the disk has written what the one before left"
        )
        return report

    def _shares(self) -> tuple[list[Share], list[Shapes]]:
        from vqvideo.experiment.config import Experiment
        from vqvideo.scripts.benchmarks.checkpoint_share import STAGES, measure_share
        from vqvideo.scripts.benchmarks.memory import in_fresh_process
        from vqvideo.storage.records import read_yaml, typed

        experiments = [typed(Experiment, read_yaml(path), str(path)) for path in self.configs]
        found = [
            in_fresh_process(measure_share, experiment, stage, self.steps, self.rounds, self.folder.absolute())
            for experiment in experiments
            for stage in STAGES
        ]
        return [share for share, _ in found], [shapes for _, shapes in found]

    def _compare(self, states: list[Shapes], report: Report) -> None:
        from vqvideo.scripts.benchmarks.checkpoint_speed import loading_table, pieces_table, saving_table
        from vqvideo.scripts.benchmarks.memory import in_fresh_process

        saving: list[dict[str, Any]] = []
        loading: list[dict[str, Any]] = []
        pieces = {}
        for shapes in states:
            # In a process of its own: Accelerate leaves state behind.
            own, read, parts = in_fresh_process(_measure, shapes, self.folder.absolute(), self.rounds, self.threads)
            saving, loading, pieces[shapes.name] = saving + own, loading + read, parts
        self._add_peaks(states[0], saving)
        report.tables.extend((saving_table(saving), pieces_table(pieces), loading_table(loading)))
        report.results.update(save=saving, load=loading, parts_of_a_save=pieces)

    def _add_peaks(self, shapes: Shapes, records: list[dict[str, Any]]) -> None:
        from vqvideo.scripts.benchmarks.checkpoint_speed import measure_peak

        for record in records:
            if record["state"] == shapes.name:
                record["peak_bytes"] = measure_peak(shapes, record["contestant"], self.folder, self.threads)

    def _quick(self) -> CheckpointBenchmark:
        return replace(self, configs=self.configs[-1:], size=4, steps=3, rounds=2)


def _measure(shapes: Shapes, folder: Path, rounds: int, cpu_threads: int) -> tuple[Any, Any, dict[str, float]]:
    """Records of saving and of loading, and the parts of our save."""
    import torch

    from vqvideo.scripts.benchmarks.checkpoint_speed import measure_loading, measure_pieces, measure_saving

    torch.set_num_threads(cpu_threads)
    saving = measure_saving(shapes, folder, rounds)
    return saving, measure_loading(shapes, folder, rounds), measure_pieces(shapes, folder, rounds)
