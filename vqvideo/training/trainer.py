"""The one training loop, on Accelerate. It knows no model by name.

A model gives the loop `forward(**batch) -> .loss, .metrics` and `after_step()`. It may have `teams()` (parameters with
optimizer settings of their own, see `optimizers`), and `window_metrics()` (figures over the steps since the last log
line; called on every rank. What a resumed run had counted before its checkpoint is not carried over).
Data order and randomness are keyed by (seed, step, micro step, rank), never carried along, so that a resumed run
continues as if it had never stopped.
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

from vqvideo.storage.checkpoint import (
    TrainingState,
    check_names,
    latest_training,
    load_into,
    load_optimizer,
    model_tensors,
    optimizer_tensors,
    save_training,
    set_aside_after,
)
from vqvideo.storage.records import flat_settings, to_plain
from vqvideo.training import finite
from vqvideo.training.config import MAY_CHANGE, TrainConfig, check_same_run, check_same_world
from vqvideo.training.finite import NonFiniteError
from vqvideo.training.optimizers import (
    MAIN,
    AveragedWeights,
    clip_gradients,
    gradient_norm,
    learning_rate,
    make_optimizer,
    set_rates,
    teams_of,
)
from vqvideo.training.processes import on_main_process, ranks_where, refuse_disagreement
from vqvideo.training.run_folder import RunFolder
from vqvideo.training.signals import InterruptedRunError, StopSignal

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
        on_main_process(lambda: self.run.check_room(self._checkpoint_bytes()), self.accelerator)
        # Through `prepare` once: DDP and autocast wrap the forward pass; the model itself stays plain.
        prepared, self.optimizer = self.accelerator.prepare(self.model, self.optimizer)
        source = iter(batches(self.step * self.cfg.accumulate, self.cfg.steps * self.cfg.accumulate))
        with StopSignal() as stop, self._progress_bar() as bar:
            if self._validation_is_missing():
                self._validate(evaluate, stop)
                if stopped_by := self._agreed(stop):
                    # The checkpoint of this step is there already, and the validation is still missing.
                    raise InterruptedRunError(stopped_by, self.run.checkpoints)
            while not self.done:
                began = time.perf_counter()
                metrics = self._optimizer_step(prepared, source)
                self._after_step(time.perf_counter() - began)
                stopped_by = self._agreed(stop)
                bar.set_postfix(step=self.step, loss=f"{metrics['loss']:.3f}", refresh=False)
                bar.update(100 * min(1.0, self.progress) - bar.n)
                if self.step % self.cfg.log_every == 0 or self.done:
                    self._log("train", self._over_ranks(metrics) | self._window_metrics())
                if self._validation_is_due() and not stopped_by:
                    self._validate(evaluate, stop)
                    stopped_by = self._agreed(stop)
                if self.step % self.cfg.checkpoint_every == 0 or self.done or stopped_by:
                    self._save()
                if stopped_by:
                    raise InterruptedRunError(stopped_by, self.run.checkpoints)
        return self._last_validation()

    @property
    def done(self) -> bool:
        """Whether steps or time are used up."""
        return self.step >= self.cfg.steps or self.progress >= 1

    @property
    def progress(self) -> float:
        """Share of the run that is over, by steps or by time."""
        by_time = self.seconds / self.cfg.max_seconds if self.cfg.max_seconds else 0.0
        return max(self.step / self.cfg.steps, by_time)

    def resume(self, *, any_world_size: bool = False) -> bool:
        """Goes on from the newest undamaged checkpoint, if there is one; otherwise the run starts anew.

        Args:
            any_world_size: go on with another number of processes too: with the same samples, but sums in another
                order and other noise on each rank.

        Raises:
            InputError: every checkpoint is damaged, or the run had other settings.
        """
        state = latest_training(self.run.checkpoints)
        if state is not None:
            check_same_run(state.progress, self._settings(), self.run.path)
            if not any_world_size:
                check_same_world(state.progress, self.accelerator.num_processes, self.run.path)
            self._restore(state)
        refuse_disagreement(self.step, self.accelerator, "the step to resume from")
        on_main_process(self._rewind, self.accelerator)
        return state is not None

    def _restore(self, state: TrainingState) -> None:
        where = self.run.checkpoints
        load_into(self.model, state.model, where)
        load_optimizer(self.model, self.optimizer, state.optimizer)
        check_names(state.average, self.average.values, f"the averaged weights in {where} do not fit the model")
        for name, value in state.average.items():
            self.average.values[name].copy_(value)
        self.step, self.seconds = state.progress["step"], state.progress["seconds"]
        if self.accelerator.scaler is not None and "scaler" in state.progress:
            self.accelerator.scaler.load_state_dict(state.progress["scaler"])
            self._skips = state.progress["skips"]

    def _rewind(self) -> None:
        self.run.rewind(self.step)
        set_aside_after(self.run.checkpoints, self.step)

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
        ranks = ranks_where(here, self.accelerator.device)
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

    def _after_step(self, seconds: float) -> None:
        """All ranks agree on the time that has passed."""
        self.step += 1
        self.seconds += self._largest(seconds)

    def _agreed(self, stop: StopSignal) -> int:
        """The signal by which all ranks stop now, 0 for none. It may have reached one of them only, or come to the next
        one a moment later: whoever acted on its own would wait for the others for ever.
        """
        return int(self._largest(float(stop.number)))

    def _largest(self, value: float) -> float:
        """The largest of all ranks' values. Collective."""
        if self.accelerator.num_processes == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.accelerator.device)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return float(shared)

    def _over_ranks(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The mean of each figure over all ranks, whose shares of a batch are equally large. Collective."""
        if self.accelerator.num_processes == 1:
            return dict(metrics)
        values = torch.tensor(list(metrics.values()), dtype=torch.float64, device=self.accelerator.device)
        dist.all_reduce(values)
        return dict(zip(metrics, (values / self.accelerator.num_processes).tolist(), strict=True))

    def _window_metrics(self) -> dict[str, float]:
        """What the model counted since the last log line, on every rank: the counts may be added up over ranks."""
        return self.model.window_metrics() if hasattr(self.model, "window_metrics") else {}  # type: ignore[operator]

    def _validation_is_due(self) -> bool:
        return self.step % self.cfg.validate_every == 0 or self.done

    def _validation_is_missing(self) -> bool:
        """Whether a signal, or a damaged log, left out the validation of the step that a resumed run begins with."""
        here = self.accelerator.is_main_process and self.step > 0 and self._validation_is_due()
        missing = here and not any(r["step"] == self.step for r in self._validations())
        return bool(ranks_where(missing, self.accelerator.device))

    def _validate(self, evaluate: Callable[[nn.Module, int], dict[str, float]], stop: StopSignal) -> None:
        metrics: dict[str, float] | None = None
        if self.accelerator.is_main_process:
            self.model.eval()
            with self.average.applied(), stop.interrupting():
                metrics = evaluate(self.model, self.step)
        if metrics is not None:
            self._log("held_out", metrics)
            shown = "  ".join(f"{key} {value:.4g}" for key, value in metrics.items())
            tqdm.write(f"step {self.step}  held out: {shown}")
        self.accelerator.wait_for_everyone()

    def _validations(self) -> list[dict[str, Any]]:
        return [record for record in self.run.records() if record["split"] == "held_out"]

    def _last_validation(self) -> dict[str, float]:
        held_out = self._validations()
        figures = {k: v for k, v in held_out[-1].items() if k not in ("step", "split", "seconds")} if held_out else {}
        return {key: math.nan if value is None else value for key, value in figures.items()}

    def _log(self, split: str, metrics: Mapping[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        self.run.log({"step": self.step, "split": split, "seconds": round(self.seconds, 3), **metrics})
        self.accelerator.log({f"{split}/{key}": value for key, value in metrics.items()}, step=self.step)

    def _save(self) -> None:
        state = self._state()
        on_main_process(lambda: self._write(state), self.accelerator)

    def _write(self, state: TrainingState) -> None:
        self.run.sync()
        save_training(self.run.checkpoints, self.step, state, self.cfg.keep)

    def _state(self) -> TrainingState:
        """All that the run needs to go on."""
        progress: dict[str, Any] = {
            "step": self.step,
            "seconds": self.seconds,
            "world": self.accelerator.num_processes,
            "settings": self._settings(),
            "precision": self.accelerator.mixed_precision,
            "threads": torch.get_num_threads(),
        }
        if self.accelerator.scaler is not None:
            progress |= {"scaler": self.accelerator.scaler.state_dict(), "skips": self._skips}
        return TrainingState(
            model=model_tensors(self.model),
            optimizer=optimizer_tensors(self.model, getattr(self.optimizer, "optimizer", self.optimizer)),
            average=self.average.values,
            progress=progress,
        )

    def _checkpoint_bytes(self) -> int:
        """About the size of a checkpoint; an optimizer that has no state yet will keep two moments of each weight."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        kept = [*model_tensors(self.model).values(), *self.average.values.values(), *trained, *trained]
        return sum(value.nbytes for value in kept)

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
