"""The training loop lets the device work: a step waits for it once, for the news that nothing has blown up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from accelerate import Accelerator
from runs import no_figures
from tiny_models import train_config
from torch import Tensor, nn
from waiting import DEVICE, waits

from vqvideo.training.finite import NonFiniteError
from vqvideo.training.launch import make_accelerator
from vqvideo.training.optimizers import ParameterGroup
from vqvideo.training.run_folder import prepare_run
from vqvideo.training.trainer import Trainer

STEPS, LOG_EVERY = 9, 4


class Output(NamedTuple):
    loss: Tensor
    metrics: dict[str, Tensor]


class Watched(nn.Module):
    """Two lines, each a parameter group, and a statistic. It notes at the end of each step how often it was waited."""

    total: Tensor

    def __init__(self, waited: list[str], poisoned_in: int = -1) -> None:
        super().__init__()
        self.line, self.other = nn.Linear(3, 2), nn.Linear(3, 2)
        self.register_buffer("total", torch.zeros(2))
        self.waited, self.poisoned_in = waited, poisoned_in
        self.counts: list[int] = []

    def forward(self, x: Tensor) -> Output:
        self.total += x.detach().sum()
        loss = (self.line(x) - self.other(x)).square().mean()
        return Output(loss * (torch.nan if len(self.counts) == self.poisoned_in else 1), {"error": loss.detach()})

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        return {"other": ParameterGroup({f"other.{name}": p for name, p in self.other.named_parameters()})}

    def after_step(self) -> None:
        self.counts.append(len(self.waited))


def fit(folder: Path, model: Watched) -> None:
    cfg = train_config(
        steps=STEPS, accumulate=2, log_every=LOG_EVERY, validate_every=100, checkpoint_every=100, learning_rate=0.01
    )
    accelerator = make_accelerator(cfg, folder)
    with prepare_run(folder, resume=False, settings=cfg, accelerator=accelerator) as run:
        batches = lambda start, stop: ({"x": torch.ones(2, 3)} for _ in range(start, stop))  # noqa: E731
        Trainer(model, cfg, run, accelerator).fit(batches, no_figures)


@pytest.fixture(autouse=True)
def _device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Accelerator, "device", property(lambda _: DEVICE))
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    yield
    torch.__future__.set_overwrite_module_params_on_conversion(False)


def test_a_step_waits_once_and_only_a_logged_one_reads_its_figures(tmp_path: Path) -> None:
    with waits() as waited:
        model = Watched(waited)
        fit(tmp_path, model)
    # From one `after_step` to the next, the first one reads what the step between them logs.
    between = [later - before for before, later in zip(model.counts, model.counts[1:], strict=False)]
    logged = [step % LOG_EVERY == 0 for step in range(1, STEPS)]
    assert [count for count, reads in zip(between, logged, strict=True) if not reads] == [1] * 6
    assert all(count > 1 for count, reads in zip(between, logged, strict=True) if reads)


def test_a_value_that_is_not_finite_on_the_device_is_noticed_in_its_step(tmp_path: Path) -> None:
    with waits() as waited:
        model = Watched(waited, poisoned_in=2)
        with pytest.raises(NonFiniteError, match=r"^step 2: not finite: loss terms loss = nan; nothing was updated"):
            fit(tmp_path, model)
    assert len(model.counts) == 2
