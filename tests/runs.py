"""What tests of training runs share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tiny_models import train_config
from torch import Tensor, nn

from vqvideo.training.launch import make_accelerator
from vqvideo.training.run_folder import prepare_run
from vqvideo.training.trainer import Trainer


def no_figures(model: nn.Module, step: int) -> dict[str, float]:
    return {}


def stop_at(monkeypatch: pytest.MonkeyPatch, model: type[nn.Module], step: int) -> None:
    """Sends this process SIGTERM in the midst of one training step."""
    after_step, calls = model.after_step, iter(range(1, 1000))

    def counting(self: nn.Module) -> None:
        after_step(self)
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(model, "after_step", counting)


class ToyOutput(NamedTuple):
    loss: Tensor
    metrics: dict[str, Tensor]


class Toy(nn.Module):
    """A line to be fitted. It counts its `after_step`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Linear(3, 2)
        self.steps = 0

    def forward(self, x: Tensor, y: Tensor) -> ToyOutput:
        error = (self.line(x) - y).square().mean()
        return ToyOutput(error, {"error": error.detach()})

    def after_step(self) -> None:
        self.steps += 1


def toy_batches(batch: int) -> Callable[[int, int], Iterator[dict[str, Tensor]]]:
    """Micro batch i is rows i * batch .. (i + 1) * batch - 1 of one endless table."""

    def batches(start: int, stop: int) -> Iterator[dict[str, Tensor]]:
        for micro in range(start, stop):
            first = micro * batch % 4096
            x = torch.randn(4096, 3, generator=torch.Generator().manual_seed(7))[first : first + batch]
            yield {"x": x, "y": x[:, :2] * 2 - 1}

    return batches


def toy_trainer(folder: Path, model: Toy | None = None, *, resume: bool = False, **changes: Any) -> Trainer:
    cfg = train_config(**({"learning_rate": 0.1, "steps": 6} | changes))
    accelerator = make_accelerator(cfg, folder)
    run = prepare_run(folder, resume=resume, settings=cfg, accelerator=accelerator)
    run.close()  # tests go on with one folder in one process
    return Trainer(model or Toy(), cfg, run, accelerator)


def as_fp16(trainer: Trainer, scale: float) -> None:
    """Puts a trainer on a CPU through the motions of fp16: its loss scaler, from a first scale on."""
    trainer.accelerator.state._mixed_precision = "fp16"
    trainer.accelerator.native_amp = True
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
