"""Values that are not finite, on one rank or all: all end before the update."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch

from reliability.endings import NOT_FINITE, badly_ended, before_step, goes_on
from reliability.lives import Life, Poison
from reliability.outcome import Guarantee, Outcome
from reliability.references import beside, reference
from vqvideo.models.quantizers import EMAVQ
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.storage.checkpoint import latest_training


def bad_loss(rank: int, folder: Path) -> None:
    """The loss of the last rank becomes NaN."""
    if rank == int(os.environ.get("WORLD_SIZE", "1")) - 1:
        real = VQVAE.forward

        def forward(self: VQVAE, *args: object, **kwargs: object) -> object:
            output = real(self, *args, **kwargs)  # type: ignore[arg-type]
            return output._replace(loss=output.loss * torch.nan) if _steps(self) == 6 else output

        VQVAE.forward = forward  # type: ignore[method-assign, assignment]


def bad_statistic(rank: int, folder: Path) -> None:
    """A sum from which the codebook follows becomes infinite on the last rank."""
    if rank == int(os.environ.get("WORLD_SIZE", "1")) - 1:
        real = EMAVQ._observe

        def observe(self: EMAVQ, z: torch.Tensor, indices: torch.Tensor) -> None:
            real(self, z, indices)
            if int(self.steps) == 6:
                self._sum[2, 1] = torch.inf

        EMAVQ._observe = observe  # type: ignore[method-assign]


def bad_codebook(rank: int, folder: Path) -> None:
    """A row of the codebook becomes NaN on all ranks."""
    before_step(7, lambda: None, lambda model: model.quantizer.codebook[3].fill_(torch.nan))


def bad_gradient(rank: int, folder: Path) -> None:
    """A gradient of the last rank becomes infinite."""
    if rank == int(os.environ.get("WORLD_SIZE", "1")) - 1:
        real = VQVAE.forward

        def forward(self: VQVAE, *args: object, **kwargs: object) -> object:
            output = real(self, *args, **kwargs)  # type: ignore[arg-type]
            if _steps(self) == 6:
                output.loss.register_hook(lambda gradient: gradient * torch.inf)
            return output

        VQVAE.forward = forward  # type: ignore[method-assign, assignment]


CASES: tuple[tuple[Poison, str, int], ...] = (
    (bad_loss, r"step 6: not finite: loss", 1),
    (bad_statistic, r"step 6: not finite: statistics vqvae\.quantizer\._sum.*\(it began on rank 1\)", 2),
    (bad_codebook, r"step 6: not finite", 1),
    (bad_loss, r"step 6: not finite.*\(it began on rank 1\)", 2),
    (bad_gradient, r"step 6: not finite", 2),
    (bad_statistic, r"step 6: not finite: statistics vqvae\.quantizer\._sum", 1),
    (bad_gradient, r"step 6: not finite: gradient of", 1),
    (bad_codebook, r"step 6: not finite", 2),
)
"""What breaks, what is to be said of it, and on how many processes."""


def not_finite(work: Path, trials: int, seed: int) -> Outcome:
    """NaN and infinity in the loss, a gradient, a statistic and the codebook, on one rank and on two."""
    wholes = {world: reference(work, "vqvae", world) for world in {case[2] for case in CASES[:trials]}}
    failures: list[str] = []
    for number in range(trials):
        poison, message, world = CASES[number % len(CASES)]
        whole, expected, _ = wholes[world]
        plan = beside(whole, work / f"case_{number}")
        life = Life(replace(plan, poison=poison), world)
        name = f"{poison.__name__} on {world} process(es)"
        failures += [f"{name}: {what}" for what in badly_ended(life, NOT_FINITE, message)]
        state = latest_training(plan.run / "checkpoints")
        if state is None or state.progress["step"] != 6:
            failures.append(f"{name}: the last checkpoint is not that of step 6")
        failures += [f"{name}, afterwards: {what}" for what in goes_on(plan, expected, world)]
    return Outcome(trials, tuple(failures))


def _steps(vqvae: VQVAE) -> int:
    """Steps that the tokenizer has learnt."""
    return int(vqvae.quantizer.steps)  # type: ignore[arg-type]


GUARANTEES = (
    Guarantee(
        "not-finite",
        "A loss, gradient, statistic or code that is not finite on any rank ends all with code 3 before the update.",
        not_finite,
        fast=3,
        long=8,
    ),
)
