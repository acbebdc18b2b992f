"""Settings and log of rounds of improvement."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_experiment

from vqvideo.data.config import RecordConfig
from vqvideo.errors import InputError
from vqvideo.experiment.rounds import ImproveConfig, RoundLog, nth_round
from vqvideo.training.config import TrainConfig

TWO_ROUNDS = ImproveConfig(rounds=2, episodes=3, exploration=0.25, share=0.5)


def test_a_log_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rounds.json").write_text("[]")
    with pytest.raises(InputError, match=r"rounds.json: settings or rounds are missing"):
        RoundLog.open(tmp_path / "rounds.json", tiny_experiment(tmp_path), TWO_ROUNDS)


def test_a_setting_that_is_newer_than_a_run_must_have_its_default(tmp_path: Path) -> None:
    cfg, path = tiny_experiment(tmp_path), tmp_path / "rounds.json"
    RoundLog.open(path, cfg, TWO_ROUNDS).add(0, "episodes", {})
    log = json.loads(path.read_text())
    del log["settings"]["prior.model.corruption"]
    path.write_text(json.dumps(log))
    assert RoundLog.open(path, cfg, TWO_ROUNDS).has(0, "episodes")
    other = replace(cfg.prior, model=replace(cfg.prior.model, corruption=0.5))
    with pytest.raises(InputError, match=r"other settings: prior\.model\.corruption 0\.1 -> 0\.5"):
        RoundLog.open(path, replace(cfg, prior=other), TWO_ROUNDS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rounds": 0}, "improve.rounds is 0, expected at least 1"),
        ({"exploration": 1.5}, r"improve.exploration is 1.5, expected 0 \.\. 1"),
        ({"share": 0.0}, "improve.share is 0.0, expected more than 0 and at most 1"),
        ({"share": float("nan")}, "improve.share is nan"),
    ],
)
def test_impossible_rounds_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImproveConfig(**wrong)


def test_a_shorter_training_keeps_the_shape_of_its_schedule() -> None:
    train = TrainConfig(steps=1000, warmup=100, max_seconds=60.0, learning_rate=3e-3)
    assert ImproveConfig(share=0.25).going_on(train) == replace(train, steps=250, warmup=25, max_seconds=15.0)
    assert ImproveConfig(share=0.01).going_on(replace(train, steps=3, max_seconds=None)).steps == 1


def test_the_growing_store_belongs_to_the_run_unless_another_is_named(tmp_path: Path) -> None:
    cfg = replace(tiny_experiment(tmp_path), record=RecordConfig(env="TinyWorld"))
    assert nth_round(cfg, TWO_ROUNDS, 1).cfg.record.folder == cfg.folder / "data"
    named = replace(cfg, record=replace(cfg.record, out=tmp_path / "mine"))
    assert nth_round(named, TWO_ROUNDS, 1).cfg.record.folder == tmp_path / "mine"
