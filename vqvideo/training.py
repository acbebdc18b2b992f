"""The one training loop, on Accelerate. It knows no model by name.

A model gives the loop `forward(**batch) -> .loss, .metrics` and `after_step()`. Data order and randomness are keyed by
(seed, step, micro step, rank), never carried along, so that a resumed run continues as if it had never stopped.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from vqvideo.checkpoint import (
    TrainingState,
    latest_training,
    load_into,
    load_optimizer,
    model_tensors,
    optimizer_tensors,
    save_training,
    set_aside_after,
)
from vqvideo.errors import InputError, RunStoppedError
from vqvideo.records import flat_settings, to_plain
from vqvideo.run_folder import RunFolder

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

Batch = Mapping[str, Tensor]

MAY_CHANGE = {"steps", "max_seconds", "threads", "workers", "validate_every", "checkpoint_every", "keep", "log_every"}
"""Settings that a resumed run may have different: a longer run, another machine, other reports. With another length
the learning rate decays differently from there on; all other settings must be the same.
"""
MOST_SKIPS = 50
"""Steps in a row that the loss scaler of fp16 may skip while it looks for its scale."""


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
    """Loader processes; 0 is fastest while the decoded episodes fit into memory."""
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


class Trainable(Protocol):
    """What the loop asks of a model."""

    def __call__(self, **batch: Tensor) -> Any: ...

    def after_step(self) -> None: ...


class NonFiniteError(RunStoppedError):
    """The loss or its gradient is not finite; the last checkpoint is untouched. Scripts exit with code 3."""

    exit_code = 3


class InterruptedRunError(RunStoppedError):
    """A signal asked the run to stop; a checkpoint was saved. Scripts exit with 128 + its number."""

    def __init__(self, number: int, where: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; go on with --resume (saved in {where})")
        self.exit_code = 128 + number


class AveragedWeights:
    """An exponential moving average of the parameters. Buffers (a codebook) are not averaged: they are taken over."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = dict(model.named_parameters())
        self.values = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the live weights; faster in the first steps, which are soon forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        live = [self._live[name].detach() for name in self.values]
        torch._foreach_lerp_(list(self.values.values()), live, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights inside this context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._live.items():
            live = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(live)


class StopSignal:
    """Remembers SIGTERM and SIGINT until the step boundary; a second one acts at once."""

    def __init__(self) -> None:
        self.number = 0
        self._old: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._old[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: FrameType | None) -> None:
        if self.number:
            os._exit(128 + number)
        self.number = number


def learning_rate(cfg: TrainConfig, step: int, progress: float) -> float:
    """Linear warm-up over steps, then cosine decay over `progress` (0 .. 1) down to `final_rate` of the peak."""
    warm = min(1.0, (step + 1) / max(1, cfg.warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return cfg.learning_rate * warm * (cfg.final_rate + (1 - cfg.final_rate) * cosine)


def make_optimizer(model: nn.Module, cfg: TrainConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: norms, biases and positions are left alone, and so are parameters
    marked `no_decay`, such as a codebook, whose vectors must not be drawn to the origin.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim >= 2 and not getattr(p, "no_decay", False)]
    plain = [p for p in parameters if p.ndim < 2 or getattr(p, "no_decay", False)]
    groups = [{"params": decayed, "weight_decay": cfg.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=cfg.learning_rate, betas=cfg.betas)


def step_seed(seed: int, step: int, micro: int, rank: int) -> int:
    """The seed of all randomness of one micro step on one rank."""
    return int(np.random.SeedSequence([seed, step, micro, rank]).generate_state(1, np.uint64)[0] >> 1)


class Trainer:
    """One run of one model: prepared model, optimizer, averaged weights, progress."""

    def __init__(
        self,
        model: nn.Module,
        cfg: TrainConfig,
        run: RunFolder,
        accelerator: Accelerator,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        """What the weights also depend on (model settings, data, tokenizer) is `identity`: plain values, recorded in
        every checkpoint and compared on resume.
        """
        self.cfg, self.run, self.accelerator = cfg, run, accelerator
        self.identity = dict(identity or {})
        self.model = model.to(accelerator.device)
        self.optimizer = make_optimizer(self.model, cfg)
        self.average = AveragedWeights(self.model, cfg.average_decay)
        self.step = 0
        self.seconds = 0.0
        self._skips = 0

    def fit(
        self,
        batches: Callable[[int, int], Iterable[Batch]],
        evaluate: Callable[[nn.Module, int], dict[str, float]],
    ) -> dict[str, float]:
        """Trains to the end.

        Args:
            batches: micro batches of this rank from one micro step up to (not including) another.
            evaluate: held-out metrics of the averaged model at a step; runs on the main process only.

        Returns:
            The last held-out metrics.

        Raises:
            NonFiniteError: a gradient is not finite, before the optimizer step.
            InterruptedRunError: a signal came; a checkpoint was saved at the step boundary.
        """
        # Through `prepare` once: DDP and autocast wrap the forward pass; the model itself stays plain.
        prepared, self.optimizer = self.accelerator.prepare(self.model, self.optimizer)
        source = iter(batches(self.step * self.cfg.accumulate, self.cfg.steps * self.cfg.accumulate))
        held_out: dict[str, float] = {}
        with StopSignal() as stop, self._progress_bar() as bar:
            while not self.done:
                began = time.perf_counter()
                metrics = self._optimizer_step(prepared, source)
                self._after_step(time.perf_counter() - began, stop)
                bar.set_postfix(step=self.step, loss=f"{metrics['loss']:.3f}", refresh=False)
                bar.update(100 * min(1.0, self.progress) - bar.n)
                if self.step % self.cfg.log_every == 0 or self.done:
                    self._log("train", metrics)
                if self.step % self.cfg.validate_every == 0 or self.done:
                    held_out = self._validate(evaluate)
                if self.step % self.cfg.checkpoint_every == 0 or self.done or stop.number:
                    self._save()
                if stop.number:
                    raise InterruptedRunError(stop.number, self.run.checkpoints)
        return held_out or self._last_validation()

    @property
    def done(self) -> bool:
        """Whether steps or time are used up."""
        return self.step >= self.cfg.steps or self.progress >= 1

    @property
    def progress(self) -> float:
        """Share of the run that is over, by steps or by time."""
        by_time = self.seconds / self.cfg.max_seconds if self.cfg.max_seconds else 0.0
        return max(self.step / self.cfg.steps, by_time)

    def resume(self) -> bool:
        """Goes on from the newest undamaged checkpoint, if there is one; otherwise the run starts anew."""
        state = latest_training(self.run.checkpoints)
        if state is None:
            self._rewind()
            return False
        self._check_same_run(state.progress)
        load_into(self.model, state.model, self.run.checkpoints)
        load_optimizer(self.model, self.optimizer, state.optimizer)
        for name, value in state.average.items():
            self.average.values[name].copy_(value)
        self.step, self.seconds = state.progress["step"], state.progress["seconds"]
        self._rewind()
        return True

    def _rewind(self) -> None:
        if self.accelerator.is_main_process:
            self.run.rewind(self.step)
            set_aside_after(self.run.checkpoints, self.step)
        self.accelerator.wait_for_everyone()

    def _check_same_run(self, progress: Mapping[str, Any]) -> None:
        before, now = progress["settings"], self._settings()
        changed = [f"{key} {before.get(key)!r} -> {now.get(key)!r}" for key in now if before.get(key) != now[key]]
        if changed:
            raise InputError(
                f"{self.run.checkpoints} was trained with other settings: {', '.join(changed)}. "
                f"Resume with the same ones, start a new run with --name, or remove {self.run.path}"
            )
        if progress["world"] != self.accelerator.num_processes:
            raise InputError(
                f"{self.run.checkpoints} was written by {progress['world']} process(es), now there are "
                f"{self.accelerator.num_processes}: resume with the same number"
            )

    def _settings(self) -> dict[str, Any]:
        """All that shapes samples and weights, by dotted name."""
        settings = flat_settings(self.identity | {"train": to_plain(self.cfg)})
        return {key: value for key, value in settings.items() if key.removeprefix("train.") not in MAY_CHANGE}

    def _optimizer_step(self, model: nn.Module, source: Iterator[Batch]) -> dict[str, float]:
        model.train()
        rate = learning_rate(self.cfg, self.step, self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        micros = [self._micro_step(model, next(source), micro) for micro in range(self.cfg.accumulate)]
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), self.cfg.clip_norm))
        if not math.isfinite(norm) and not self._skip_allowed():
            # After the all-reduce the norm is the same on all ranks, so all of them stop here.
            raise NonFiniteError(f"step {self.step}: the gradient is not finite (norm {norm}); nothing was updated")
        self._skips = 0 if math.isfinite(norm) else self._skips + 1
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.after_step()  # type: ignore[operator]
        self.average.update(self.step)
        means = {key: sum(float(m[key]) for m in micros) / len(micros) for key in micros[0]}
        return means | {"learning_rate": rate, "gradient_norm": norm}

    def _skip_allowed(self) -> bool:
        """In fp16 the loss scaler itself leaves out a step that overflowed, and lowers its scale."""
        return self.accelerator.scaler is not None and self._skips < MOST_SKIPS

    def _micro_step(self, model: nn.Module, batch: Batch, micro: int) -> dict[str, Tensor]:
        rank = self.accelerator.process_index
        torch.manual_seed(step_seed(self.cfg.seed, self.step, micro, rank))
        device = self.accelerator.device
        batch = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
        last = micro == self.cfg.accumulate - 1
        with self.accelerator.autocast(), _maybe(not last, lambda: self.accelerator.no_sync(model)):
            output = model(**batch)
            self.accelerator.backward(output.loss / self.cfg.accumulate)
        return {"loss": output.loss.detach(), **output.metrics}

    def _after_step(self, seconds: float, stop: StopSignal) -> None:
        """All ranks agree on the time that has passed and on whether to stop."""
        if self.accelerator.num_processes > 1:
            shared = torch.tensor([seconds, float(stop.number)], device=self.accelerator.device)
            dist.all_reduce(shared, op=dist.ReduceOp.MAX)
            seconds, stop.number = float(shared[0]), int(shared[1])
        self.step += 1
        self.seconds += seconds

    def _validate(self, evaluate: Callable[[nn.Module, int], dict[str, float]]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        if self.accelerator.is_main_process:
            self.model.eval()
            with self.average.applied():
                metrics = evaluate(self.model, self.step)
            self._log("held_out", metrics)
            shown = "  ".join(f"{key} {value:.4g}" for key, value in metrics.items())
            tqdm.write(f"step {self.step}  held out: {shown}")
        self.accelerator.wait_for_everyone()
        return metrics

    def _last_validation(self) -> dict[str, float]:
        held_out = [r for r in self.run.records() if r["split"] == "held_out"]
        figures = {k: v for k, v in held_out[-1].items() if k not in ("step", "split", "seconds")} if held_out else {}
        return {key: math.nan if value is None else value for key, value in figures.items()}

    def _log(self, split: str, metrics: Mapping[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        self.run.log({"step": self.step, "split": split, "seconds": round(self.seconds, 3), **metrics})
        self.accelerator.log({f"{split}/{key}": value for key, value in metrics.items()}, step=self.step)

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            progress = {
                "step": self.step,
                "seconds": self.seconds,
                "world": self.accelerator.num_processes,
                "settings": self._settings(),
                "precision": self.accelerator.mixed_precision,
                "threads": torch.get_num_threads(),
            }
            optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
            state = TrainingState(
                model_tensors(self.model),
                optimizer_tensors(self.model, optimizer),
                self.average.values,
                progress,
            )
            save_training(self.run.checkpoints, self.step, state, self.cfg.keep)
        self.accelerator.wait_for_everyone()

    def _progress_bar(self) -> tqdm:
        """Percent of the run, so that the remaining time is right whether steps or seconds end it."""
        return tqdm(
            total=100,
            initial=100 * self.progress,
            disable=not self.accelerator.is_main_process,
            bar_format="{percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}",
            mininterval=2.0,
        )


@contextmanager
def _maybe(condition: bool, context: Callable[[], Any]) -> Iterator[None]:
    if condition:
        with context():
            yield
    else:
        yield
