"""How a model is trained: the settings of the loop, and which of them a resumed run may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vqvideo.errors import InputError

MAY_CHANGE = {"steps", "max_seconds", "threads", "workers", "validate_every", "checkpoint_every", "keep", "log_every"}
"""Settings that a resumed run may have different: a longer run, another machine, other reports. With another length
the learning rate decays differently from there on; all other settings must be the same.
"""


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained."""

    steps: int = 10_000
    """Optimizer steps."""
    max_seconds: float | None = None
    """Stop after this much training time; the learning rate decays over whichever of the two ends first."""
    batch: int = 16
    """Clips per optimizer step, over all ranks and accumulated micro batches."""
    accumulate: int = 1
    """Micro batches per optimizer step."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    warmup: int = 100
    """Steps of linear warm-up."""
    final_rate: float = 0.05
    """Share of the peak at the end of the cosine decay."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's betas."""
    weight_decay: float = 0.01
    """AdamW's weight decay, on matrices only."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    average_decay: float = 0.995
    """Decay of the averaged weights, which are the ones validated and exported."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Mixed precision; auto measures on CPUs and takes bf16 on GPUs that have it."""
    threads: int | None = None
    """CPU threads per process; by default measured."""
    workers: int = 0
    """Loader processes, each with decoded episodes of its own; 0 is fastest while these fit into memory."""
    validate_every: int = 500
    """Steps between held-out validations; there is always one at the end."""
    checkpoint_every: int = 500
    """Steps between checkpoints; there is always one at the end."""
    keep: int = 2
    """Checkpoints kept."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    seed: int = 0
    """Seed of the weights, the data order and the training noise."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "validate_every", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(f"train.{name} is {getattr(self, name)}, expected at least 1")
        for name in ("seed", "workers", "warmup"):
            if getattr(self, name) < 0:
                raise InputError(f"train.{name} is {getattr(self, name)}, expected at least 0")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise InputError(f"train.max_seconds is {self.max_seconds}, expected more than 0, or none for no limit")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"train.threads is {self.threads}, expected at least 1")
        if self.keep < 2:
            raise InputError(f"train.keep is {self.keep}, expected at least 2: the newest one may be damaged")
        if not 0 <= self.average_decay < 1:
            raise InputError(f"train.average_decay is {self.average_decay}, expected 0 <= decay < 1")

    def micro_batch(self, world: int) -> int:
        """Clips per micro batch over all ranks."""
        if self.batch % (world * self.accumulate):
            raise InputError(
                f"a batch of {self.batch} clips cannot be split over {world} process(es) x {self.accumulate} micro "
                f"batches: choose a multiple of {world * self.accumulate}"
            )
        return self.batch // self.accumulate


def check_same_run(progress: Mapping[str, Any], settings: Mapping[str, Any], run: Path) -> None:
    """Raises InputError if a checkpoint was written with other settings than those of now, or is none of ours.

    Args:
        progress: what the checkpoint records.
        settings: of now, by dotted name.
        run: folder of the run, for the message.
    """
    if not {"settings", "step", "seconds", "world"} <= progress.keys():
        raise InputError(f"{run}: its checkpoint lacks settings, step, seconds or world: it is not ours")
    before = progress["settings"]
    keys = [*settings, *(key for key in before if key not in settings)]
    different = [key for key in keys if before.get(key) != settings.get(key)]
    if different:
        changed = ", ".join(f"{key} {before.get(key)!r} -> {settings.get(key)!r}" for key in different)
        raise InputError(
            f"{run} was trained with other settings: {changed}. "
            f"Resume with the same ones, start a new run with --name, or remove {run}"
        )


def check_same_world(progress: Mapping[str, Any], processes: int, run: Path) -> None:
    """Raises InputError if a checkpoint was written by another number of processes."""
    if progress["world"] != processes:
        raise InputError(
            f"{run} was trained by {progress['world']} process(es), now there are {processes}: resume with the same "
            "number, or add --any-world-size: the same samples, but other rounding and noise"
        )
