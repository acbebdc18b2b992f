"""What tests of training runs share."""

from __future__ import annotations

import os
import signal

import pytest
from torch import nn


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
