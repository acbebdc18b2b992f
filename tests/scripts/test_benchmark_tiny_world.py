"""The benchmark of where a world of TinyWorld errs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import tiny_world

from vqvideo.errors import InputError
from vqvideo.scripts.benchmarks.tiny_world import TinyWorldBenchmark, play
from vqvideo.world import WorldModel


def saved(folder: Path, env_id: str, stride: int) -> Path:
    world = tiny_world(stride)
    WorldModel(world.vqvae, world.prior, replace(world.env, env_id=env_id)).save_pretrained(folder)
    return folder


def test_every_step_is_of_one_kind_and_good_play_meets_more_goals() -> None:
    random, good = (play(player, 300, seed=1) for player in ("random", "shortest path"))
    for steps in (random, good):
        assert (sum(chosen.astype(int) for chosen in steps.kinds.values()) == 1).all()
        assert (steps.rewards[steps.kinds["goal"]] == 1).all()
    assert good.kinds["goal"].sum() > 10 * max(1, random.kinds["goal"].sum())


def test_an_untrained_world_errs_in_nearly_every_step_and_all_steps_are_counted(tmp_path: Path) -> None:
    report = TinyWorldBenchmark(world=saved(tmp_path / "world", "TinyWorld", 1), quick=True).measure()
    for found in report.results.values():
        assert sum(figures["steps"] for figures in found.values()) == 200
        assert all(figures["wrong"] > 0.9 for figures in found.values())
    assert len(report.tables[0].rows) == sum(len(found) for found in report.results.values())


@pytest.mark.parametrize(("env_id", "stride"), [("CarRacing", 1), ("TinyWorld", 2)])
def test_another_world_is_refused(tmp_path: Path, env_id: str, stride: int) -> None:
    world = saved(tmp_path / "world", env_id, stride)
    with pytest.raises(InputError, match=rf"of {env_id}, stride {stride}: expected TinyWorld, stride 1"):
        TinyWorldBenchmark(world=world).measure()
