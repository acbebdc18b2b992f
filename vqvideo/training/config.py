"""How a model is trained: the settings of the loop, and which of them a resumed run may change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from vqvideo.errors import InputError, at_least
from vqvideo.storage.records import flat_settings, to_plain

LENGTH = ("steps", "min_seconds", "max_seconds")
"""Settings that say how long a run is."""
MAY_CHANGE = {*LENGTH, "threads", "workers", "validate_every", "checkpoint_every", "keep", "log_every", "trackers"}
"""Settings that a resumed run may have different: a longer run, another machine, other reports. With another length
the learning rate decays differently from there on; all other settings must be the same.
"""


_ENDLESS = 2**40
"""Steps that no run takes; and as many micro steps are still a number that a loader can count to."""


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained."""

    steps: int = 10_000
    """Optimizer steps."""
    min_seconds: float | None = None
    """Go on for this much training time at least: a machine that has done the steps sooner does more of them."""
    max_seconds: float | None = None
    """Stop after this much training time. The learning rate decays over the whole run, by whatever ends it."""
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
    """Mixed precision; auto takes what the launcher was asked for (--mixed_precision bf16), or else measures on CPUs
    and takes bf16 on GPUs that have it. What was taken is recorded in the checkpoints.
    """
    threads: int | Literal["follow"] | None = None
    """CPU threads per process: a number, or follow for one or all cores, whichever is faster at the moment, measured
    again and again during the run, since other programs come and go. By default a run with min_seconds or
    max_seconds follows; any other measures at the start and keeps the number, since other threads would give other
    bits.
    """
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
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] | None = None
    """Experiment trackers beside metrics.jsonl, such as tensorboard wandb; by default tensorboard, where it is
    installed.
    """
    seed: int = 0
    """Seed of the weights, the data order and the training noise."""

    def __post_init__(self) -> None:
        at_least(self, "train.", steps=1, batch=1, accumulate=1, validate_every=1, checkpoint_every=1, log_every=1)
        at_least(self, "train.", seed=0, workers=0, warmup=0)
        if self.threads != "follow":
            at_least(self, "train.", threads=1)
        at_least(self, "train.", learning_rate=0, final_rate=0, weight_decay=0, clip_norm=0)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"train.betas are {self.betas}, expected 0 <= beta < 1")
        for name in ("min_seconds", "max_seconds"):
            if (seconds := getattr(self, name)) is not None and not seconds > 0:
                raise InputError(f"train.{name} is {seconds}, expected more than 0, or none for no limit")
        if (self.min_seconds or 0.0) > (self.max_seconds or math.inf):
            raise InputError(
                f"train.min_seconds is {self.min_seconds:g} and train.max_seconds {self.max_seconds:g}: expected no "
                "more than that"
            )
        if self.keep < 2:
            raise InputError(f"train.keep is {self.keep}, expected at least 2: the newest one may be damaged")
        if not 0 <= self.average_decay < 1:
            raise InputError(f"train.average_decay is {self.average_decay}, expected 0 <= decay < 1")

    @property
    def length(self) -> dict[str, Any]:
        """What a run ends by, and the decay of its learning rate follows."""
        return {name: getattr(self, name) for name in LENGTH}

    @property
    def most_steps(self) -> int:
        """Steps that it cannot go beyond."""
        return self.steps if self.min_seconds is None else _ENDLESS

    @property
    def follows_load(self) -> bool:
        """Whether the number of threads may change during the run."""
        by_clock = self.min_seconds is not None or self.max_seconds is not None
        return self.threads == "follow" or (self.threads is None and by_clock)

    def progress(self, step: int, seconds: float) -> float:
        """Share of the run that is over after so many steps and seconds: of what it has to do, or of the time that it
        may take, whichever is more.
        """
        done = min(step / self.steps, seconds / self.min_seconds) if self.min_seconds else step / self.steps
        return max(done, seconds / self.max_seconds) if self.max_seconds else done

    def micro_batch(self, world: int) -> int:
        """Clips per micro batch over all ranks."""
        if self.batch % (world * self.accumulate):
            raise InputError(
                f"a batch of {self.batch} clips cannot be split over {world} process(es) x {self.accumulate} micro "
                f"batches: choose a multiple of {world * self.accumulate}"
            )
        return self.batch // self.accumulate


def end_by_clock(cfg: TrainConfig, step: int, stage: str) -> str | None:
    """Says of a run that has ended at a step that it was cut short by its clock; None where it was not.

    Args:
        cfg: how it was trained.
        step: steps that were taken.
        stage: name of its folder, which its settings begin with.
    """
    if step >= cfg.steps:
        return None
    setting = f"--{stage}.train.max-seconds"
    return (
        f"stopped by the clock after {step:,} of {cfg.steps:,} steps: {setting} is {cfg.max_seconds:g}. To take the "
        f"others, call it again with more, or with {setting} none (a training script: with --resume)"
    )


@dataclass(frozen=True)
class Identity:
    """What samples and weights of a run depend on: recorded in every checkpoint, compared when it is continued."""

    stage: Any
    """Settings, as a dataclass or by name; `train`, a TrainConfig, is one of them."""
    free: frozenset[str] = frozenset()
    """Settings of the stage that may change."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What else counts, such as the digest of the store."""

    def settings(self) -> dict[str, Any]:
        """All that counts, by dotted name."""
        free = {*self.free, *(f"train.{name}" for name in MAY_CHANGE)}
        counting = {k: v for k, v in flat_settings(self.stage).items() if free.isdisjoint((k, k.partition(".")[0]))}
        return {**counting, **self.facts}


def defaults_beside(value: Any, before: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Defaults of settings that a record lacks, by dotted name.

    Args:
        value: a dataclass of settings as they are now.
        before: the record, by dotted name.
        prefix: of the names of `value`.
    """
    try:
        defaults = to_plain(type(value)())
    except TypeError:
        return {}  # without a default there is nothing to fill in
    lacking: dict[str, Any] = {}
    for setting in fields(value) if is_dataclass(value) else ():
        name, item = prefix + setting.name, getattr(value, setting.name)
        # Where the default is something new, the setting says what there was before.
        default = flat_settings({name: setting.metadata.get("before", defaults[setting.name])})
        if not any(key == name or key.startswith(f"{name}.") for key in before):
            lacking |= default
        elif is_dataclass(item):
            # A setting that had one kind only was recorded without it.
            lacking |= {key: kind for key, kind in default.items() if key == f"{name}.kind" and key not in before}
            lacking |= defaults_beside(item, before, f"{name}.")
    return lacking


def check_same_run(progress: Mapping[str, Any], identity: Identity, run: Path) -> None:
    """Raises InputError if a checkpoint was written with other settings than those of now, or by another program.

    Args:
        progress: what the checkpoint records.
        identity: of the run that goes on; settings that are newer than the checkpoint had their defaults then.
        run: folder of the run, for the message.
    """
    recorded, settings = progress["settings"], identity.settings()
    before = defaults_beside(identity.stage, recorded) | recorded
    different = [key for key in {**settings, **recorded} if before.get(key) != settings.get(key)]
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
