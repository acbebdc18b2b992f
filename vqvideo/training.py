"""The one training loop, on Accelerate. It knows no model by name.

A model gives the loop `forward(**batch) -> .loss, .metrics` and `after_step()`. It may have `teams()` (parameters with
optimizer settings of their own, see `vqvideo.optimizers`) and `window_metrics()` (figures over the steps since the last
log line; called on every rank). Data order and randomness are keyed by (seed, step, micro step, rank), never carried
along, so that a resumed run continues as if it had never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from vqvideo import finite
from vqvideo.averaging import AveragedWeights
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
from vqvideo.errors import InputError
from vqvideo.finite import NonFiniteError
from vqvideo.optimizers import (
    MAIN,
    clip_gradients,
    gradient_norm,
    learning_rate,
    make_optimizer,
    set_rates,
    teams_of,
)
from vqvideo.records import flat_settings, to_plain
from vqvideo.run_folder import RunFolder
from vqvideo.signals import InterruptedRunError, StopSignal
from vqvideo.train_config import MAY_CHANGE, TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = [
    "AveragedWeights",
    "Batch",
    "InterruptedRunError",
    "NonFiniteError",
    "TrainConfig",
    "Trainable",
    "Trainer",
    "learning_rate",
    "make_optimizer",
    "step_seed",
]

Batch = Mapping[str, Tensor]

MOST_SKIPS = 50
"""Steps in a row that the loss scaler of fp16 may skip while it looks for its scale."""


class Trainable(Protocol):
    """What the loop asks of a model."""

    def __call__(self, **batch: Tensor) -> Any: ...

    def after_step(self) -> None: ...


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
        self.teams = teams_of(self.model)
        others = {name for team in self.teams.values() if not team.averaged for name in team.parameters}
        averaged = {name: p for name, p in self.model.named_parameters() if name not in others}
        self.average = AveragedWeights(averaged, cfg.average_decay)
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
            NonFiniteError: a loss, gradient or statistic is not finite, before the optimizer step.
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
                    self._log("train", metrics | self._window_metrics())
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
        keys = [*now, *(key for key in before if key not in now)]
        changed = [f"{key} {before.get(key)!r} -> {now.get(key)!r}" for key in keys if before.get(key) != now.get(key)]
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
        rates = {
            name: learning_rate(self.cfg, self.step, self.progress, team.learning_rate)
            for name, team in self.teams.items()
        }
        set_rates(self.optimizer, rates)
        micros = [self._micro_step(model, next(source), micro) for micro in range(self.cfg.accumulate)]
        metrics = {key: sum(float(m[key]) for m in micros) / len(micros) for key in micros[0]}
        norms = self._clip(metrics)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.after_step()  # type: ignore[operator]
        self.average.update(self.step)
        return metrics | _by_team("learning_rate", rates) | _by_team("gradient_norm", norms)

    def _clip(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Clips the gradient of each team and returns the norms before.

        Raises:
            NonFiniteError: on all ranks alike, with gradients and statistics as they were found.
        """
        self.accelerator.unscale_gradients()
        norms = {name: gradient_norm(team.parameters.values()) for name, team in self.teams.items()}
        values = {name: float(norm) for name, norm in norms.items()}
        gradient_is_finite = all(map(math.isfinite, values.values()))
        # A gradient is the same on all ranks; a loss and the statistics that `after_step` will use are a rank's own.
        # (What the loss scaler of fp16 skips comes from a loss that overflowed, so there only the statistics count.)
        here = not finite.all_finite(self.model.buffers())
        here |= self.accelerator.scaler is None and not math.isfinite(metrics["loss"])
        ranks = finite.ranks_where(here, self.accelerator.device)
        if ranks or not (gradient_is_finite or self._skip_allowed()):
            found = finite.findings(self.model, metrics, sum(values.values()))
            raise NonFiniteError(f"step {self.step}: {found}{self._where(ranks)}; nothing was updated")
        self._skips = 0 if gradient_is_finite else self._skips + 1
        for name, team in self.teams.items():
            clip_gradients(team.parameters.values(), self.cfg.clip_norm, norms[name])
        return values

    def _where(self, ranks: list[int]) -> str:
        several = self.accelerator.num_processes > 1
        return f" (it began on rank {', '.join(map(str, ranks))})" if ranks and several else ""

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

    def _window_metrics(self) -> dict[str, float]:
        """What the model counted since the last log line, on every rank: the counts may be added up over ranks."""
        return self.model.window_metrics() if hasattr(self.model, "window_metrics") else {}  # type: ignore[operator]

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


def _by_team(figure: str, values: Mapping[str, float]) -> dict[str, float]:
    """Figures by name; that of the main team has the plain name."""
    return {figure if team == MAIN else f"{figure}_{team}": value for team, value in values.items()}


@contextmanager
def _maybe(condition: bool, context: Callable[[], Any]) -> Iterator[None]:
    if condition:
        with context():
            yield
    else:
        yield
