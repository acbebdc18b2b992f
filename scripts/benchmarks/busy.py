"""The benchmark of a busy machine: what trainings keep of their speed beside other programs, and on which threads."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from vqvideo.errors import InputError
from vqvideo.scripts.benchmarks.subject import Benchmark

if TYPE_CHECKING:
    from vqvideo.experiment.config import Experiment
    from vqvideo.scripts.benchmarks.report import Report, Table

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
QUIET = "nothing else"
NEIGHBOURS = {
    QUIET: "",
    "one busy program": "work = lambda: sum(range(10_000))",
    "a program on all cores": "import torch\na = torch.rand(400, 400)\nwork = lambda: torch.tanh(a @ a)",
}
"""What computes beside the training, as Python code."""
FOLLOWING = "following"
"""The contestant whose threads follow the load."""
_LOOP = "print(flush=True)\nimport os\nwhile os.getppid() == {parent}: work()"
"""A neighbour says that it begins, and ends with the one who started it."""
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class BusyBenchmark(Benchmark):
    """Training steps/s on a machine with nothing else to do, beside a busy program, and beside one on all cores."""

    config: Path = CONFIG
    """Experiment whose tokenizer and prior are trained, on noise, with its batches."""
    seconds: float = 15.0
    """How long each figure is measured. Threads that follow the load look every few seconds."""

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise InputError(f"--seconds is {self.seconds}, expected more than 0")

    def measure(self) -> Report:
        from vqvideo.experiment.config import Experiment
        from vqvideo.scripts.benchmarks.report import Report
        from vqvideo.storage.records import read_yaml, typed

        experiment = typed(Experiment, read_yaml(self.config), str(self.config))
        cfg = replace(self, seconds=0.2) if self.quick else self
        waiting = {name: os.environ.get(name) for name in _WAITING}
        settings = {**asdict(replace(cfg, json=None)), "config": self.config.name, "environment": waiting}
        report = Report("busy", settings)
        records = cfg._measured(experiment)
        report.results["cpu"] = records
        report.tables.append(_table(records))
        report.notes.append("how threads wait: " + ", ".join(f"{k}={v or 'not set'}" for k, v in waiting.items()))
        return report

    def _measured(self, experiment: Experiment) -> list[dict[str, Any]]:
        """A record for each kind of training, neighbour and number of threads."""
        from vqvideo.training.hardware import available_cores

        most, records = available_cores(), []
        contestants: dict[str, bool] = {"1": False}
        if most > 1:
            contestants |= {str(most): False, FOLLOWING: True}
        for stage, step in _trainings(experiment, tiny=self.quick).items():
            for neighbour, code in NEIGHBOURS.items():
                with _beside(code):
                    for name, follows in contestants.items():
                        if follows:
                            own = _following_steps(step, most, self.seconds)
                        else:
                            own = _steps(step, int(name), self.seconds)
                        records.append({"stage": stage, "beside": neighbour, "threads": name, **own})
        return records


@contextmanager
def _beside(code: str) -> Iterator[None]:
    """A program computes meanwhile, if there is any code of it."""
    if not code:
        yield
        return
    command = [sys.executable, "-c", f"{code}\n{_LOOP.format(parent=os.getpid())}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as neighbour:
        try:
            assert neighbour.stdout is not None
            neighbour.stdout.readline()
            yield
        finally:
            neighbour.kill()


def _trainings(experiment: Experiment, *, tiny: bool) -> dict[str, Callable[[], object]]:
    """One training step of the tokenizer and one of the prior, on noise: their speed does not depend on the data."""
    import torch

    from vqvideo.experiment.objective import TokenizerObjective
    from vqvideo.scripts.benchmarks.dreams import Untrained

    stages = experiment.vqvae, experiment.prior
    h, w = experiment.record.size
    world = Untrained(stages[0].model, stages[1].model, (h, w)).load()
    objective = TokenizerObjective(world.vqvae, stages[0].perceptual, stages[0].adversarial)
    spec, noise = world.prior.spec, torch.Generator().manual_seed(0)
    batches = [1, 1] if tiny else [stage.train.batch for stage in stages]
    frames = (batches[0], world.vqvae.clip_length(stages[0].latent_steps), 3, h, w)
    b, t = batches[1], stages[1].latent_steps
    codes = {
        "codes": torch.randint(0, spec.codebook_size, (b, t, *spec.grid), generator=noise),
        "actions": torch.rand(b, t - 1, spec.stride, spec.action_space.size, generator=noise),
        "rewards": torch.rand(b, t - 1, generator=noise),
        "terminated": torch.zeros(b, t - 1, dtype=torch.bool),
    }
    pixels = {"frames": torch.randint(0, 256, frames, dtype=torch.uint8, generator=noise)}
    return {
        "tokenizer": _training_step(objective, stages[0].train, pixels),
        "prior": _training_step(world.prior, stages[1].train, codes),
    }


def _training_step(model: Any, train: Any, batch: dict[str, Any]) -> Callable[[], object]:
    import torch

    from vqvideo.training.hardware import best_precision
    from vqvideo.training.optimizers import make_optimizer

    optimizer = make_optimizer(model.train(), train)
    bf16 = (best_precision(on_cpu=True) if train.precision == "auto" else train.precision) == "bf16"

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        model.after_step()

    return step


def _following_steps(step: Callable[[], object], most: int, seconds: float) -> dict[str, Any]:
    """As `_steps`, on threads that follow the load; it begins with all of them."""
    import torch

    from vqvideo.training.config import TrainConfig
    from vqvideo.training.threads import Way, following_threads

    torch.set_num_threads(most)
    chooser = following_threads(TrainConfig(threads="follow"), on_cpu=True)
    assert chooser is not None

    def follow(taken: float) -> None:
        before = chooser.now
        chooser.took(taken)
        if chooser.now != before:
            chooser.now.take()

    found = _steps(step, most, seconds, follow)
    Way(most).take()
    return {**found, "kept": str(chooser.kept)}


def _steps(
    step: Callable[[], object], count: int, seconds: float, after: Callable[[float], object] = lambda taken: None
) -> dict[str, Any]:
    """Takes steps for so long, after a first one for warming up, and calls `after` with the seconds of each."""
    from vqvideo.scripts.benchmarks.timing import threads

    taken: list[float] = []
    with threads(count):
        step()
        while sum(taken) < seconds:
            began = time.perf_counter()
            step()
            taken.append(time.perf_counter() - began)
            after(taken[-1])
    return {"steps_per_s": len(taken) / sum(taken), "seconds_median": median(taken), "steps": len(taken)}


def _table(records: list[dict[str, Any]]) -> Table:
    """Steps/s: a row for each training and number of threads, a column for each neighbour."""
    from vqvideo.scripts.benchmarks.report import Table, rate

    rows: dict[tuple[str, str], list[str]] = {}
    for record in records:
        shown = rate(record["steps_per_s"]) + (f" (ends on {record['kept']})" if "kept" in record else "")
        rows.setdefault((record["stage"], record["threads"]), []).append(shown)
    title = "training steps/s by what computes beside it"
    return Table(title, ("training", "threads", *NEIGHBOURS), [(*names, *cells) for names, cells in rows.items()])
