"""A run that goes on with another length says so where its learning rate goes up again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runs import no_figures, toy_batches, toy_trainer
from tiny_models import train_config

from vqvideo.training.optimizers import rise_of_rate
from vqvideo.training.trainer import Trainer


def resumed(folder: Path, **changes: Any) -> Trainer:
    trainer = toy_trainer(folder, resume=True, **changes)
    assert trainer.resume()
    return trainer


def test_more_steps_after_the_decay_are_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = toy_trainer(tmp_path, steps=10)
    first.fit(toy_batches(4), no_figures)
    rates = {r["step"]: r["learning_rate"] for r in first.run.records() if r["split"] == "train"}
    capsys.readouterr()
    second = resumed(tmp_path, steps=20)
    (line,) = capsys.readouterr().out.splitlines()
    second.fit(toy_batches(4), no_figures)
    rates |= {r["step"]: r["learning_rate"] for r in second.run.records() if r["split"] == "train"}
    assert line == (
        f"learning rate goes up again from {rates[10]:.3g} to {rates[11]:.3g} at step 10 because train.steps went from "
        "10 to 20: it decays over the whole length of a run"
    )


@pytest.mark.parametrize("steps", [10, 11])
def test_a_resumed_run_whose_rate_does_not_rise_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], steps: int
) -> None:
    toy_trainer(tmp_path, steps=10, final_rate=1.0).fit(toy_batches(4), no_figures)
    capsys.readouterr()
    resumed(tmp_path, steps=steps, final_rate=1.0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("before", "now", "step", "seconds", "told"),
    [
        ({"steps": 100}, {"steps": 200}, 60, 1.0, "train.steps went from 100 to 200"),
        ({"max_seconds": 10.0}, {"max_seconds": 30.0}, 60, 9.0, "train.max_seconds went from 10.0 to 30.0"),
        ({"max_seconds": 10.0}, {"max_seconds": None}, 60, 9.0, "train.max_seconds went from 10.0 to None"),
        (
            {"steps": 100, "max_seconds": 10.0},
            {"steps": 300, "max_seconds": 50.0},
            60,
            9.0,
            "train.steps went from 100 to 300 and train.max_seconds went from 10.0 to 50.0",
        ),
        ({"steps": 200}, {"steps": 100}, 60, 1.0, None),
        ({"steps": 100}, {"steps": 100}, 60, 1.0, None),
        ({"steps": 100}, {"steps": 200}, 3, 1.0, None),
        ({"steps": 100, "max_seconds": 10.0}, {"steps": 500, "max_seconds": 10.0}, 60, 9.0, None),
        ({"steps": 50}, {"steps": 50, "min_seconds": 90.0}, 40, 9.0, "train.min_seconds went from None to 90.0"),
    ],
)
def test_only_a_length_that_raises_the_rate_is_told(
    before: dict[str, Any], now: dict[str, Any], step: int, seconds: float, told: str | None
) -> None:
    plain = {"steps": 1000, "warmup": 10}
    said = rise_of_rate(train_config(**plain | before), train_config(**plain | now), step, seconds)
    assert (said is None) == (told is None)
    assert (told or "") in (said or "")


def test_a_checkpoint_from_before_lengths_were_recorded_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = Trainer._state

    def older(self: Trainer) -> Any:
        told = state(self)
        del told.progress["length"]
        return told

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_state", older)
        toy_trainer(tmp_path, steps=10).fit(toy_batches(4), no_figures)
    capsys.readouterr()
    assert resumed(tmp_path, steps=20).step == 10
    assert capsys.readouterr().out == ""
