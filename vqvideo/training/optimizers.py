"""AdamW over groups of parameters, each with its own learning rate, betas and clipping; and averages of the weights.

One optimizer object serves all groups. AdamW treats every element alone, so its groups are as good as optimizers of
their own; and the loss scaler of fp16 leaves out a step of all groups together, never of one side of an adversarial
game.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from vqvideo.training.config import TrainConfig

MAIN = "main"
"""The group of all parameters that the model puts into no other one."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained by settings of their own; what is None is as for the main group."""

    parameters: Mapping[str, nn.Parameter]
    """By their names in the whole model."""
    learning_rate: float | None = None
    """Peak learning rate; warm-up and decay are shared."""
    betas: tuple[float, float] | None = None
    """AdamW's betas."""
    averaged: bool = True
    """Whether averaged weights are kept of them."""


def parameter_groups(model: nn.Module) -> dict[str, ParameterGroup]:
    """The groups that `model.parameter_groups()` names, if it has that method, after the main one of all other
    parameters.
    """
    others: dict[str, ParameterGroup] = model.parameter_groups() if hasattr(model, "parameter_groups") else {}  # type: ignore[operator]
    taken = {id(p) for group in others.values() for p in group.parameters.values()}
    main = {name: p for name, p in model.named_parameters() if id(p) not in taken}
    assert MAIN not in others
    assert len(taken) == sum(len(group.parameters) for group in others.values())
    return {MAIN: ParameterGroup(main), **others}


def make_optimizer(model: nn.Module, cfg: TrainConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: norms, biases and positions are left alone, and so are parameters that
    a module names in `no_decay()`, such as a codebook, whose vectors must not be drawn to the origin. Two of torch's
    groups for each of ours, which carry its name as `group`.
    """
    # Named by modules, not marked on parameters: a copy of a model has parameters of its own.
    named = {id(p) for module in model.modules() if hasattr(module, "no_decay") for p in module.no_decay()}  # type: ignore[operator]
    groups = [
        own
        for name, group in parameter_groups(model).items()
        for own in _with_and_without_decay(name, group, cfg, named)
    ]
    # One pass over each parameter: a third of the time of torch's default on CPUs.
    fused = all(p.device.type in ("cpu", "cuda") for p in model.parameters())
    return torch.optim.AdamW(groups, lr=cfg.learning_rate, betas=cfg.betas, fused=fused)


def _with_and_without_decay(
    name: str, group: ParameterGroup, cfg: TrainConfig, no_decay: set[int]
) -> list[dict[str, object]]:
    parameters = [p for p in group.parameters.values() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim >= 2 and id(p) not in no_decay]
    plain = [p for p in parameters if p.ndim < 2 or id(p) in no_decay]
    own = {"group": name, "betas": group.betas or cfg.betas}
    return [
        {"params": decayed, "weight_decay": cfg.weight_decay, **own},
        {"params": plain, "weight_decay": 0.0, **own},
    ]


def learning_rate(cfg: TrainConfig, step: int, progress: float, peak: float | None = None) -> float:
    """Linear warm-up over steps, then cosine decay over `progress` (0 .. 1) down to `final_rate` of the peak, which is
    the configured one by default.
    """
    warm = min(1.0, (step + 1) / max(1, cfg.warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return (cfg.learning_rate if peak is None else peak) * warm * (cfg.final_rate + (1 - cfg.final_rate) * cosine)


def rise_of_rate(before: TrainConfig, now: TrainConfig, step: int, seconds: float) -> str | None:
    """Says that the learning rate goes up again where a run of another length goes on; None where it does not.

    Args:
        before: how the run was trained up to here.
        now: how it goes on.
        step: steps that were taken.
        seconds: that it took.
    """
    last = learning_rate(before, max(0, step - 1), before.progress(step - 1, seconds))
    as_before = learning_rate(before, step, before.progress(step, seconds))
    following = learning_rate(now, step, now.progress(step, seconds))
    # A warm-up rises by itself, and by less than a hundredth there is nothing to wonder about.
    if following < 1.01 * max(last, as_before):
        return None
    lengths = zip(before.length.items(), now.length.values(), strict=True)
    changes = " and ".join(f"train.{name} went from {old} to {new}" for (name, old), new in lengths if old != new)
    return (
        f"learning rate goes up again from {last:.3g} to {following:.3g} at step {step} because {changes}: it decays "
        "over the whole length of a run"
    )


class AveragedWeights:
    """An exponential moving average of parameters, by name. Buffers (a codebook) are not averaged: they are taken
    over.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self._live = dict(parameters)
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
