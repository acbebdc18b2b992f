"""Parameter groups, learning rates, averaged weights, and the loss scaler of fp16."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import Toy, ToyOutput, as_fp16, no_figures, toy_batches, toy_trainer
from tiny_models import same_tensors
from torch import Tensor, nn

from vqvideo.storage.checkpoint import training_checkpoints
from vqvideo.training.config import TrainConfig
from vqvideo.training.optimizers import AveragedWeights, ParameterGroup, learning_rate, make_optimizer


class Rivals(Toy):
    """Two lines, of which the second is a group of its own."""

    def __init__(self, **group: Any) -> None:
        super().__init__()
        self.other, self.group = nn.Linear(3, 2), group

    def forward(self, x: Tensor, y: Tensor) -> ToyOutput:
        output = super().forward(x, y)
        return output._replace(loss=output.loss + 100 * (self.other(x) + y).square().mean())

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        return {
            "other": ParameterGroup({f"other.{name}": p for name, p in self.other.named_parameters()}, **self.group)
        }


class OnlyOther(Toy):
    """The second line of `Rivals` alone."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 2)

    def forward(self, x: Tensor, y: Tensor) -> ToyOutput:
        return ToyOutput(100 * (self.line(x) + y).square().mean(), {})


def test_two_groups_learn_as_each_would_alone(tmp_path: Path) -> None:
    together = toy_trainer(tmp_path / "both", Rivals(learning_rate=0.03, betas=(0.5, 0.8)))
    alone = toy_trainer(tmp_path / "one")
    other = toy_trainer(tmp_path / "other", OnlyOther(), learning_rate=0.03, betas=(0.5, 0.8))
    for trainer in (together, alone, other):
        trainer.fit(toy_batches(4), no_figures)
    for name, value in alone.model.line.state_dict().items():
        assert torch.equal(together.model.line.state_dict()[name], value)
    for name, value in other.model.line.state_dict().items():
        assert torch.equal(together.model.other.state_dict()[name], value)
    line = together.run.records()[0]
    assert line["learning_rate_other"] == pytest.approx(0.3 * line["learning_rate"])
    assert line["gradient_norm_other"] > 10 * line["gradient_norm"]


def test_a_group_may_do_without_averaged_weights(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, Rivals(averaged=False))
    trainer.fit(toy_batches(4), no_figures)
    assert set(trainer.average.values) == {"line.weight", "line.bias"}


def test_a_run_with_two_groups_resumes_bit_by_bit(tmp_path: Path) -> None:
    whole = toy_trainer(tmp_path / "whole", Rivals(learning_rate=0.03, averaged=False))
    whole.fit(toy_batches(4), no_figures)
    resumed = toy_trainer(tmp_path / "whole", Rivals(learning_rate=0.03, averaged=False), resume=True)
    shutil.rmtree(training_checkpoints(whole.run.checkpoints)[-1])
    assert resumed.resume()
    assert resumed.step == 3
    resumed.fit(toy_batches(4), no_figures)
    assert same_tensors(resumed.model.state_dict(), whole.model.state_dict())
    assert same_tensors(resumed.average.values, whole.average.values)


def test_a_step_that_overflows_in_fp16_is_left_out_by_all_groups(tmp_path: Path) -> None:
    class Watched(Rivals):
        def after_step(self) -> None:
            super().after_step()
            states.append({name: value.clone() for name, value in self.state_dict().items()})

    states: list[dict[str, Tensor]] = []
    trainer = toy_trainer(tmp_path, Watched(), steps=12)
    as_fp16(trainer, scale=2.0**16)
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.fit(toy_batches(4), no_figures)
    norms = [r["gradient_norm_other"] for r in trainer.run.records() if r["split"] == "train"]
    skipped = norms.index(next(filter(None, norms)))
    assert 1 <= skipped <= 10
    # The other group's gradient alone overflowed at last.
    assert trainer.run.records()[skipped - 1]["gradient_norm"] is not None
    assert all(same_tensors(state, start) for state in states[:skipped])
    for before, after in zip([start, *states[skipped:]], states[skipped:], strict=False):
        assert not any(torch.equal(after[name], value) for name, value in before.items())


def test_a_resumed_run_in_fp16_has_the_scale_that_was_found(tmp_path: Path) -> None:
    first = toy_trainer(tmp_path, Rivals(), steps=12)
    as_fp16(first, scale=2.0**16)
    first.fit(toy_batches(4), no_figures)
    second = toy_trainer(tmp_path, Rivals(), steps=12, resume=True)
    as_fp16(second, scale=2.0**20)
    assert second.resume()
    assert second.accelerator.scaler.state_dict() == first.accelerator.scaler.state_dict()
    assert second.accelerator.scaler.get_scale() < 2.0**16


# ---------------------------------------------------------------- small parts


def test_an_average_follows_its_definition_and_leaves_buffers_alone() -> None:
    model = nn.BatchNorm1d(1)
    average = AveragedWeights(dict(model.named_parameters()), decay=0.5)
    expected = 1.0
    for step in range(20):
        with torch.no_grad():
            model.weight.fill_(float(step))
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert average.values["weight"].item() == pytest.approx(expected, rel=1e-5)
    assert set(average.values) == {"weight", "bias"}
    with average.applied():
        assert model.weight.item() == pytest.approx(expected, rel=1e-5)
        assert average.values["weight"].item() == 19
    assert model.weight.item() == 19


def test_the_learning_rate_warms_up_and_decays_to_its_last_share() -> None:
    cfg = TrainConfig(steps=1000, learning_rate=1.0, warmup=10, final_rate=0.1)
    assert learning_rate(cfg, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(cfg, 9, 0.0) == pytest.approx(1.0)
    assert learning_rate(cfg, 500, 0.5) == pytest.approx(0.55)
    assert learning_rate(cfg, 1000, 1.0) == pytest.approx(0.1)
    assert learning_rate(cfg, 1000, 7.0) == pytest.approx(0.1)
    rates = [learning_rate(cfg, step, step / 1000) for step in range(10, 1001)]
    assert rates == sorted(rates, reverse=True)


def test_weight_decay_falls_on_matrices_only_and_frozen_weights_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 2).requires_grad_(False))
    optimizer = make_optimizer(model, TrainConfig(weight_decay=0.3))
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert [p is model[0].weight for p in decayed["params"]] == [True]
    assert len(plain["params"]) == 3
