"""The one training loop, on Accelerate. It knows no model by name.

A model gives the loop `forward(**batch) -> .loss, .metrics` and `after_step()`. It may have `parameter_groups()`
(parameters with optimizer settings of their own, see `optimizers`), and `interval_metrics()` (figures over the steps
since the last log line; called on every rank; what a resumed run had counted before its checkpoint is left out).
Data order and randomness are keyed by (seed, step, micro step, rank), never carried along, so that a resumed run
continues as if it had never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from tqdm import tqdm

from vqvideo.storage.checkpoint import (
    TrainingState,
    latest_training,
    load_into,
    load_optimizer,
    model_tensors,
    optimizer_tensors,
    save_training,
    set_aside_after,
)
from vqvideo.training import finite
from vqvideo.training.config import Identity, TrainConfig, check_same_run, check_same_world, end_by_clock
from vqvideo.training.finite import NonFiniteError
from vqvideo.training.loader import Batch
from vqvideo.training.optimizers import (
    MAIN,
    AveragedWeights,
    learning_rate,
    make_optimizer,
    parameter_groups,
    rise_of_rate,
)
from vqvideo.training.processes import gathered, on_main_process, ranks_where, refuse_disagreement
from vqvideo.training.run_folder import RunFolder
from vqvideo.training.signals import InterruptedRunError, StopSignal
from vqvideo.training.threads import FollowingThreads, following_threads

if TYPE_CHECKING:
    from accelerate import Accelerator

MOST_SKIPS = 50
"""Steps in a row that the loss scaler of fp16 may skip while it looks for its scale."""


def step_seed(seed: int, step: int, micro: int, rank: int) -> int:
    """The seed of all randomness of one micro step on one rank."""
    return int(np.random.SeedSequence([seed, step, micro, rank]).generate_state(1, np.uint64)[0] >> 1)


class _StepFigures(NamedTuple):
    """The figures of an optimizer step, on the device until somebody wants to read them."""

    micros: list[dict[str, Tensor]]
    """Loss and metrics of each micro batch."""
    norms: dict[str, Tensor]
    """Gradient norms by parameter group, before clipping."""
    rates: dict[str, float]
    """Learning rates by parameter group."""

    def read_metrics(self) -> dict[str, float]:
        """Loss and metrics, as means over the micro batches."""
        return {key: sum(float(m[key]) for m in self.micros) / len(self.micros) for key in self.micros[0]}

    def read(self) -> dict[str, float]:
        """All figures by their names in the log."""
        norms = {name: float(norm) for name, norm in self.norms.items()}
        return self.read_metrics() | _by_group("learning_rate", self.rates) | _by_group("gradient_norm", norms)


def _by_group(figure: str, values: Mapping[str, float]) -> dict[str, float]:
    """Figures by name; that of the main group has the plain name."""
    return {figure if group == MAIN else f"{figure}_{group}": value for group, value in values.items()}


def _mean_over_ranks(figures: Mapping[str, float]) -> dict[str, float]:
    """The mean of each figure over all ranks, whose shares of a batch are equally large. Collective."""
    columns = zip(*gathered(*figures.values()), strict=True)
    return {name: sum(values) / len(values) for name, values in zip(figures, columns, strict=True)}


class Trainer:
    """One run of one model: prepared model, optimizer, averaged weights, progress."""

    def __init__(
        self,
        model: nn.Module,
        cfg: TrainConfig,
        run: RunFolder,
        accelerator: Accelerator,
        identity: Identity | None = None,
    ) -> None:
        """`identity` is what the weights also depend on, such as settings of the model, data and tokenizer."""
        self.cfg, self.run, self.accelerator = cfg, run, accelerator
        self.identity = identity or Identity({"train": cfg})
        self.model = model.to(accelerator.device)
        self.optimizer = make_optimizer(self.model, cfg)
        self.groups = parameter_groups(self.model)
        others = {name for group in self.groups.values() if not group.averaged for name in group.parameters}
        averaged = {name: p for name, p in self.model.named_parameters() if name not in others}
        self.average = AveragedWeights(averaged, cfg.average_decay)
        self.step = 0
        self.seconds = 0.0
        self._skips = 0
        self._threads: FollowingThreads | None = None

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
        on_main_process(lambda: self.run.check_room(self._checkpoint_bytes(), self.cfg.keep))
        if threads := following_threads(self.cfg, on_cpu=self.accelerator.device.type == "cpu"):
            self._threads = threads
            threads.now.take()
        # Through `prepare` once: DDP and autocast wrap the forward pass; the model itself stays plain.
        prepared, self.optimizer = self.accelerator.prepare(self.model, self.optimizer)
        source = iter(batches(self.step * self.cfg.accumulate, self.cfg.most_steps * self.cfg.accumulate))
        with StopSignal() as stop, self._progress_bar() as bar:
            if self._validation_is_missing():
                self._validate(evaluate, stop)
                if stopped_by := self._stop_agreed(stop):
                    # The checkpoint of this step is there already, and the validation is still missing.
                    raise InterruptedRunError(stopped_by, self.run.checkpoints)
            while not self.done:
                began = time.perf_counter()
                figures = self._optimizer_step(prepared, source)
                stopped_by = self._after_step(time.perf_counter() - began, stop)
                bar.update(100 * min(1.0, self.progress) - bar.n)
                if self.step % self.cfg.log_every == 0 or self.done:
                    metrics = _mean_over_ranks(figures.read())
                    bar.set_postfix(step=self.step, loss=f"{metrics['loss']:.3f}", refresh=False)
                    self._log("train", metrics | self._threads_kept() | self._interval_metrics())
                if self._validation_is_due() and not stopped_by:
                    self._validate(evaluate, stop)
                    stopped_by = self._stop_agreed(stop)
                if self.step % self.cfg.checkpoint_every == 0 or self.done or stopped_by:
                    self._save()
                if stopped_by:
                    raise InterruptedRunError(stopped_by, self.run.checkpoints)
        self._tell_of_the_clock()
        return self._last_validation()

    @property
    def done(self) -> bool:
        """Whether the run has all that it has to do, or no time left."""
        return self.progress >= 1

    @property
    def progress(self) -> float:
        """Share of the run that is over, by steps or by time."""
        return self.cfg.progress(self.step, self.seconds)

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
            check_same_run(state.progress, self.identity, self.run.path)
            if not any_world_size:
                check_same_world(state.progress, self.accelerator.num_processes, self.run.path)
            self._restore(state)
            self._tell_of_a_rise(state.progress)
        refuse_disagreement(self.step, "the step to resume from")
        on_main_process(self._rewind)
        return state is not None

    def _restore(self, state: TrainingState) -> None:
        load_into(self.model, state.model, self.run.checkpoints)
        load_optimizer(self.model, self.optimizer, state.optimizer)
        for name, value in state.average.items():
            self.average.values[name].copy_(value)
        self.step, self.seconds = state.progress["step"], state.progress["seconds"]
        if self.accelerator.scaler is not None and "scaler" in state.progress:
            self.accelerator.scaler.load_state_dict(state.progress["scaler"])
            self._skips = state.progress["skips"]

    def _tell_of_a_rise(self, progress: Mapping[str, Any]) -> None:
        if "length" in progress:
            # A checkpoint from before there was `min_seconds` had none.
            before = replace(self.cfg, **({"min_seconds": None} | progress["length"]))
            if said := rise_of_rate(before, self.cfg, self.step, self.seconds):
                self.accelerator.print(said, flush=True)

    def _tell_of_the_clock(self) -> None:
        if said := end_by_clock(self.cfg, self.step, self.run.path.name):
            self.accelerator.print(said, flush=True)

    def _rewind(self) -> None:
        self.run.rewind(self.step)
        set_aside_after(self.run.checkpoints, self.step)

    def _optimizer_step(self, model: nn.Module, source: Iterator[Batch]) -> _StepFigures:
        model.train()
        rates = {
            name: learning_rate(self.cfg, self.step, self.progress, group.learning_rate)
            for name, group in self.groups.items()
        }
        for part in self.optimizer.param_groups:
            part["lr"] = rates[part["group"]]
        micros = [self._micro_step(model, next(source), micro) for micro in range(self.cfg.accumulate)]
        self.accelerator.unscale_gradients()
        norms = {
            name: get_total_norm([p.grad for p in group.parameters.values() if p.grad is not None])
            for name, group in self.groups.items()
        }
        figures = _StepFigures(micros, norms, rates)
        self._refuse_non_finite(figures)
        for name, group in self.groups.items():
            clip_grads_with_norm_(group.parameters.values(), self.cfg.clip_norm, norms[name])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.after_step()  # type: ignore[operator]
        self.average.update(self.step)
        return figures

    def _refuse_non_finite(self, figures: _StepFigures) -> None:
        """Raises NonFiniteError on all ranks alike, with gradients and statistics as they were found."""
        # A gradient is the same on all ranks; a loss and the statistics that `after_step` will use are a rank's own.
        # (What the loss scaler of fp16 skips comes from a loss that overflowed, so there only the statistics count.)
        losses = [] if self.accelerator.scaler is not None else [micro["loss"] for micro in figures.micros]
        flags = finite.any_non_finite([*self.model.buffers(), *losses]), finite.any_non_finite(figures.norms.values())
        # The one value of a step for which the host waits.
        here, in_gradient = torch.stack([flag.to(self.accelerator.device) for flag in flags]).tolist()
        ranks = ranks_where(here)
        if ranks or (in_gradient and not self._skip_allowed()):
            found = finite.findings(self.model, figures.read_metrics(), figures.norms.values())
            raise NonFiniteError(f"step {self.step}: {found}{self._where(ranks)}; nothing was updated")
        self._skips = self._skips + 1 if in_gradient else 0

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
        # Gradients are summed over the ranks once a step, with the last micro batch.
        with self.accelerator.autocast(), nullcontext() if last else self.accelerator.no_sync(model):
            output = model(**batch)
            self.accelerator.backward(output.loss / self.cfg.accumulate)
        return {"loss": output.loss.detach(), **output.metrics}

    def _after_step(self, seconds: float, stop: StopSignal) -> int:
        """All ranks agree on the time that has passed, and on the signal by which they stop now, 0 for none. It may
        have reached one of them only, or come to the next one a moment later: whoever acted on its own would wait for
        the others for ever.
        """
        self.step += 1
        times, signals = zip(*gathered(seconds, stop.number), strict=True)
        self.seconds += max(times)
        self._follow_load(max(times))
        return int(max(signals))

    def _follow_load(self, seconds: float) -> None:
        """Chooses how the next step is computed. All ranks know the same time, and so all choose alike."""
        if self._threads is None:
            return
        before, switch = self._threads.now, self._threads.took(seconds)
        if self._threads.now != before:
            self._threads.now.take()
        if switch and switch.telling and self.accelerator.is_main_process:
            tqdm.write(f"step {self.step}  {switch}")

    def _threads_kept(self) -> dict[str, float]:
        """For the log of a run whose number of threads may change."""
        way = self._threads.kept if self._threads and self.cfg.follows_load else None
        return {"threads": way.threads, "spinning": int(way.spinning)} if way else {}

    def _stop_agreed(self, stop: StopSignal) -> int:
        return int(max(number for (number,) in gathered(stop.number)))

    def _interval_metrics(self) -> dict[str, float]:
        """What the model counted since the last log line, on every rank: the counts may be added up over ranks."""
        return self.model.interval_metrics() if hasattr(self.model, "interval_metrics") else {}  # type: ignore[operator]

    def _validation_is_due(self) -> bool:
        return self.step % self.cfg.validate_every == 0 or self.done

    def _validation_is_missing(self) -> bool:
        """Whether a signal, or a damaged log, left out the validation of the step that a resumed run begins with."""
        here = self.accelerator.is_main_process and self.step > 0 and self._validation_is_due()
        missing = here and not any(r["step"] == self.step for r in self._validations())
        return bool(ranks_where(missing))

    def _validate(self, evaluate: Callable[[nn.Module, int], dict[str, float]], stop: StopSignal) -> None:
        def validate() -> None:
            metrics: dict[str, float] | None = None
            self.model.eval()
            with self.average.applied(), stop.interrupting():
                metrics = evaluate(self.model, self.step)
            if metrics is not None:
                self._log("held_out", metrics)
                listed = "  ".join(f"{key} {value:.4g}" for key, value in metrics.items())
                tqdm.write(f"step {self.step}  held out: {listed}")

        on_main_process(validate)

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

        def write() -> None:
            self.run.sync()
            save_training(self.run.checkpoints, self.step, state, self.cfg.keep)

        on_main_process(write)

    def _state(self) -> TrainingState:
        """All that the run needs to go on."""
        progress: dict[str, Any] = {
            "step": self.step,
            "seconds": self.seconds,
            "world": self.accelerator.num_processes,
            "settings": self.identity.settings(),
            "precision": self.accelerator.mixed_precision,
            "threads": self._threads.kept.threads if self._threads else torch.get_num_threads(),
            "length": self.cfg.length,
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
