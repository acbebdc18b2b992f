"""Agents over seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vqvideo.errors import InputError
from vqvideo.evaluation.seeds import compare_seeds, interquartile_mean, over_seeds
from vqvideo.scripts import agent_seeds
from vqvideo.scripts.train_agent import BEST, CONTROL, DREAM, RANDOM


def test_the_interquartile_mean_is_that_of_the_middle_half() -> None:
    assert interquartile_mean([100, 2, 3, 4, -50]) == 3
    assert interquartile_mean([1, 5]) == 3
    assert interquartile_mean(range(8)) == 3.5


def test_the_interval_holds_the_mean_and_is_as_wide_as_seeds_differ() -> None:
    wide, narrow = over_seeds([0, 5, 10, 15, 20]), over_seeds([9, 10, 10, 10, 11])
    for figures in (wide, narrow):
        assert figures["low_95"] <= figures["iqm"] == 10 <= figures["high_95"]
    assert wide["high_95"] - wide["low_95"] > 5 * (narrow["high_95"] - narrow["low_95"]) > 0
    assert (wide["minimum"], wide["seeds"], wide["values"]) == (0, 5, [0, 5, 10, 15, 20])
    assert over_seeds([3])["low_95"] == over_seeds([3])["high_95"] == 3


def test_shares_are_taken_seed_by_seed_where_there_is_a_gain_to_share() -> None:
    runs = [{"a": 2.0, "b": 4.0, "r": 0.0}, {"a": 1.0, "b": 2.0, "r": 1.0}, {"a": 5.0, "b": 1.0, "r": 1.0}, {"a": 1.0}]
    figures = compare_seeds(runs, "r", [("a", "b"), ("a", "c")])
    assert figures["agents"]["a"]["values"] == [2, 1, 5, 1]
    assert {name: each["values"] for name, each in figures["shares"].items()} == {"a / b": [0.5, 0.0]}


def results(path: Path, seed: int, dream: float, env: str = "TinyWorld") -> Path:
    means = {DREAM: dream, CONTROL: 10.0, RANDOM: 0.0, BEST: 20.0}
    agents = {name: {"mean_return": mean} for name, mean in means.items()}
    path.write_text(json.dumps({"env": env, "seed": seed, "agents": agents}))
    return path


def test_results_of_both_scripts_come_into_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = results(tmp_path / "results.json", 0, 4.0)
    played = [{"agent": 1.0, "control": 5.0, "random": 0.0, BEST: 20.0}, {"agent": 8.0, "control": 10.0}]
    rounds = [{"returns": {name: {"mean_return": mean} for name, mean in each.items()}} for each in played]
    log = {"settings": {"record.env": "TinyWorld", "agent.seed": 1}, "rounds": [*rounds, {"episodes": {}}]}
    (tmp_path / "rounds.json").write_text(json.dumps(log))
    out = tmp_path / "seeds.json"
    found = agent_seeds.compare(agent_seeds.Options((first, tmp_path / "rounds.json"), out))
    assert json.loads(out.read_text()) == found
    assert found["agents"][DREAM]["values"] == [4.0, 8.0]
    assert found["shares"][f"{DREAM} / {CONTROL}"]["values"] == [0.4, 0.8]
    printed = capsys.readouterr().out
    assert f"{DREAM} / {CONTROL}" in printed
    assert "60%" in printed


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    first, again = results(tmp_path / "a.json", 0, 1.0), results(tmp_path / "b.json", 0, 2.0)
    other = results(tmp_path / "c.json", 1, 2.0, env="Pong")
    (tmp_path / "d.json").write_text("{}")
    for paths, message in (
        ((first, again), r"seed of .*a.json: 0, .*b.json: 0: expected one environment, and every seed once"),
        ((first, other), "env of .*TinyWorld.*Pong"),
        ((tmp_path / "d.json",), r"d.json: no returns of agents: expected results.json of train_agent.py"),
        ((), "no results"),
    ):
        with pytest.raises(InputError, match=message):
            agent_seeds.compare(agent_seeds.Options(paths))
