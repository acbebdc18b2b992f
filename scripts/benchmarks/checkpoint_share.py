"""What share of a training goes into its checkpoints: both stages of an experiment, a few real steps on noise."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from itertools import pairwise, repeat
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from vqvideo.experiment.config import Experiment
from vqvideo.experiment.tokenizer import TokenizerObjective
from vqvideo.models.prior import Prior
from vqvideo.scripts.benchmarks.checkpoint_savers import Shapes
from vqvideo.scripts.benchmarks.dreams import Untrained
from vqvideo.scripts.benchmarks.report import Table, megabytes
from vqvideo.storage.checkpoint import load_training, save_training, training_checkpoints
from vqvideo.training.launch import make_accelerator
from vqvideo.training.run_folder import prepare_run
from vqvideo.training.trainer import TrainConfig, Trainer

Batch = dict[str, Tensor]
_FIRST = 2
"""Steps before those that count: kernels are chosen and buffers allocated in them."""


@dataclass(frozen=True)
class Share:
    """Saving beside training."""

    stage: str
    """Experiment and stage."""
    device: str
    """Where it trains."""
    every: int
    """Steps from one checkpoint to the next."""
    step_seconds: float
    """Seconds of a step, the median."""
    save_seconds: float
    """Seconds of a save, the median."""
    bytes: int
    """Bytes of the checkpoint's files."""

    @property
    def percent(self) -> float:
        """Of the time between two checkpoints, that for one."""
        return 100 * self.save_seconds / (self.every * self.step_seconds)


def measure_share(experiment: Experiment, stage: str, steps: int, rounds: int, folder: Path) -> tuple[Share, Shapes]:
    """Trains a stage of an experiment for some steps as its script does, but on noise, and saves its state repeatedly.

    Args:
        experiment: models, batch sizes, precision, threads.
        stage: key of `STAGES`.
        steps: how many, at least 3.
        rounds: saves.
        folder: on whose disk; nothing is left there.

    Returns:
        The share of its checkpoints, and the shapes of the model's parameters.
    """
    torch.manual_seed(0)
    model, train, batch = STAGES[stage](experiment)
    cfg = replace(train, steps=steps, max_seconds=None, log_every=1, validate_every=steps, checkpoint_every=steps)
    with TemporaryDirectory(dir=folder) as place:
        accelerator = make_accelerator(cfg, Path(place))
        with prepare_run(Path(place), resume=False, settings=experiment, accelerator=accelerator) as run:
            trainer = Trainer(model, cfg, run, accelerator)
            with _silence():
                trainer.fit(lambda start, stop: repeat(batch, stop - start), lambda model, step: {})
            passed = [record["seconds"] for record in run.records() if record["split"] == "train"]
            saved = training_checkpoints(run.checkpoints)[-1]
            size = sum(file.stat().st_size for file in saved.iterdir())
            seconds = _save_again(saved, rounds)
    name = f"{experiment.name}, {stage}"
    per_step = median(after - before for before, after in list(pairwise(passed))[_FIRST - 1 :])
    share = Share(name, accelerator.device.type, train.checkpoint_every, per_step, median(seconds), size)
    return share, Shapes(name, tuple(tuple(p.shape) for p in model.parameters() if p.requires_grad))


@contextmanager
def _silence() -> Iterator[None]:
    """Without progress bars."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _save_again(path: Path, rounds: int) -> list[float]:
    """Seconds of each save of what a checkpoint holds, beside that checkpoint."""
    state, seconds = load_training(path), []
    for number in range(1, rounds + 1):
        os.sync()
        began = time.perf_counter()
        save_training(path.parent, state.progress["step"] + number, state, keep=2)
        seconds.append(time.perf_counter() - began)
    return seconds


def _tokenizer(experiment: Experiment) -> tuple[nn.Module, TrainConfig, Batch]:
    stage, size = experiment.vqvae, experiment.record.frame_size
    vqvae = stage.model.build((size, size))
    clips, stills = stage.train.batch, stage.stills.per_batch
    batch = {"frames": _noise(clips, vqvae.clip_length(stage.latent_steps), size)}
    if stills:
        batch["stills"] = _noise(stills, 1, size)
    return TokenizerObjective(vqvae, stage.perceptual, stage.adversarial), stage.train, batch


def _prior(experiment: Experiment) -> tuple[nn.Module, TrainConfig, Batch]:
    stage = experiment.prior
    prior = Untrained(experiment.vqvae.model, stage.model, experiment.record.frame_size).load().prior
    return prior, stage.train, _codes(prior, stage.train.batch, stage.latent_steps)


def _noise(clips: int, frames: int, size: int) -> Tensor:
    return torch.randint(0, 256, (clips, frames, 3, size, size), dtype=torch.uint8)


def _codes(prior: Prior, clips: int, steps: int) -> Batch:
    """What `CodeClips` gives, of noise."""
    spec, following = prior.spec, (clips, steps - 1)
    return {
        "codes": torch.randint(0, spec.codebook_size, (clips, steps, *spec.grid)),
        "actions": torch.rand(*following, spec.stride, spec.action_space.size),
        "rewards": torch.rand(following),
        "terminated": torch.zeros(following, dtype=torch.bool),
        "weights": torch.ones(following),
    }


STAGES: dict[str, Callable[[Experiment], tuple[nn.Module, TrainConfig, Batch]]] = {
    "tokenizer": _tokenizer,
    "prior": _prior,
}
"""Model, settings and a batch of each stage."""


def share_table(shares: list[Share]) -> Table:
    """The stages one below the other."""
    columns = ("stage", "device", "checkpoint MB", "s/step", "s/save", "steps between", "% of the time")
    table = Table("checkpoints beside the steps between them", columns)
    for share in shares:
        seconds = f"{share.step_seconds:.4f}", f"{share.save_seconds:.4f}"
        cells = (share.stage, share.device, megabytes(share.bytes), *seconds, str(share.every), f"{share.percent:.3f}")
        table.rows.append(cells)
    return table


def share_record(share: Share) -> dict[str, Any]:
    """For a file."""
    return vars(share) | {"percent": share.percent}
