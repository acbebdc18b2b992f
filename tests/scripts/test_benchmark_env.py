"""The benchmark of the imagined environment: contestants do the same work, what leaks is seen. No times asserted."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import SCRIPTS
from tiny_models import FIVE, SIZE, STEERING, tiny_store, tiny_world, vqvae_config

sys.path.insert(0, str(SCRIPTS))

from vqvideo.errors import InputError
from vqvideo.models.prior import PriorConfig, Sampling
from vqvideo.scripts import benchmark
from vqvideo.scripts.benchmark import EnvBenchmark
from vqvideo.scripts.benchmarks.dreams import Untrained
from vqvideo.scripts.benchmarks.env_contestants import (
    BARE,
    BARE_ROWS,
    ENV,
    ENV_ENDLESS,
    Clocked,
    Plan,
    Playing,
    contestants,
)
from vqvideo.scripts.benchmarks.env_memory import measure_growth, watch_memory
from vqvideo.scripts.benchmarks.env_speed import COLUMNS, Turns, load_average, measure_steps, table_of_steps
from vqvideo.scripts.benchmarks.env_starts import WAYS, measure_resets, measure_start_up
from vqvideo.scripts.benchmarks.env_worlds import RandomWorld, SavedWorld, endless

CPU = torch.device("cpu")
ONCE = Turns(CPU, 1, rounds=1, seconds=0.0)
SHAPE = Untrained(vqvae_config(), PriorConfig(dim=32, heads=2, layers=2, window=3), SIZE)
PLACE = RandomWorld(SHAPE, FIVE, "Tiny-v0", ends=0.5)
PLAN = Plan(PLACE, starts=4, horizon=6, sampling=Sampling())


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqvideo.scripts.benchmarks.env_memory.in_fresh_process", lambda function, *a: function(*a))


# ---------------------------------------------------------------- worlds


@pytest.mark.parametrize("space", [FIVE, STEERING], ids=str)
@pytest.mark.parametrize("ends", [0.0, 0.25, 1.0])
def test_a_random_world_takes_the_actions_and_ends_as_often_as_it_is_told(space: Any, ends: float) -> None:
    play = replace(PLAN, place=RandomWorld(SHAPE, space, "Tiny-v0", ends)).begin(CPU)
    assert play.world.action_space == space
    envs = play.envs(2)
    envs.reset(seed=0)
    infos = envs.step(envs.action_space.sample())[4]
    told = infos["final_info"] if ends == 1 else infos
    assert told["termination"] == pytest.approx([ends, ends], abs=1e-6)


def test_equal_random_worlds_are_equal() -> None:
    one, two = (PLACE.load().state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_endless_world_is_a_copy_that_differs_in_its_ends_alone() -> None:
    world = tiny_world()
    before = {name: value.clone() for name, value in world.state_dict().items()}
    copy = endless(world).state_dict()
    assert all(torch.equal(before[name], value) for name, value in world.state_dict().items())
    changed = {name for name in before if not torch.equal(before[name], copy[name])}
    assert changed == {"prior.termination.weight", "prior.termination.bias"}


def test_a_world_without_starts_of_its_own_needs_a_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--store is missing: .*world has no start clips"):
        SavedWorld(str(tmp_path / "world")).beginnings(tiny_world(), 4)


# ---------------------------------------------------------------- contestants


def test_contestants_have_equally_many_streams_and_only_the_environment_with_ends_ends() -> None:
    steps = contestants(PLAN.begin(CPU), 3, {})
    assert list(steps) == [BARE, BARE_ROWS, ENV_ENDLESS, ENV]
    ended = {name: sum(step() for _ in range(8)) for name, step in steps.items()}
    assert ended[ENV] > 0
    assert {ended[name] for name in (BARE, BARE_ROWS, ENV_ENDLESS)} == {0}


@pytest.mark.parametrize("count", [1, 3, 6, 9])
def test_staggered_rows_end_one_after_the_other(count: int) -> None:
    play = replace(PLAN, place=replace(PLACE, ends=0.0)).begin(CPU)
    playing = Playing(play.envs(count)).staggered(play.horizon)
    ended = [playing() for _ in range(play.horizon)]
    assert sum(ended) == count
    assert max(ended) == -(-count // play.horizon)


def test_the_calls_before_the_first_turn_do_not_count() -> None:
    ended = iter([100, 100, 1, 2, 3])
    clocked = Clocked(lambda: next(ended))
    for _ in range(5):
        clocked()
    assert clocked.ended == 2
    assert clocked.cpu_seconds > 0


def test_records_of_steps_hold_rates_ratios_and_ends() -> None:
    turns = Turns(CPU, 1, rounds=3, seconds=0.0)
    records = measure_steps(contestants(PLAN.begin(CPU), 2, {}), 2, turns)
    for record in records:
        low, high = record["steps_per_s_quartiles"]
        assert 0 < low <= record["steps_per_s"] <= high
        assert record["steps_per_s"] * record["seconds"] == pytest.approx(2)
        assert len(record["seconds_rounds"]) == 3
        assert record["cpu_time_over_bare"] == record["cpu_seconds"] / records[0]["cpu_seconds"]
        assert set(record["time_over_bare"]) == {"of_medians", "low", "high"}
    bare, *_, env = records
    assert (bare["contestant"], env["contestant"]) == (BARE, ENV)
    assert (bare["time_over_bare"]["of_medians"], bare["ends_per_step"]) == (1.0, 0.0)
    assert env["time_over_bare"]["of_medians"] == pytest.approx(env["seconds"] / bare["seconds"])
    rows = table_of_steps(records, "title").rows
    assert [len(row) for row in rows] == [len(COLUMNS)] * 4


def test_where_the_system_tells_no_load_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "getloadavg", raising=False)
    assert load_average() is None


# ---------------------------------------------------------------- beginnings


def test_resets_are_counted_by_the_rows_that_begin() -> None:
    records = measure_resets(PLAN.begin(CPU), 3, ONCE)
    assert [(record["begun"], record["rows"]) for record in records] == list(zip(WAYS, (1, 3, 1), strict=True))
    assert all(record["ms_per_row"] > 0 for record in records)


def test_a_start_takes_what_its_state_and_frame_take() -> None:
    record, table = measure_start_up(PLAN, ONCE)
    state = PLAN.begin(CPU).starts.state
    rings = sum(ring.k[0].nbytes + ring.v[0].nbytes for ring in state.prior.caches)
    assert record["starts"] == 4
    assert record["bytes_per_start"] >= rings + SIZE * SIZE * 3
    assert table.rows[0][0] == "4 starts"


# ---------------------------------------------------------------- memory


def test_a_leak_shows_as_growth_from_the_early_look_to_the_end() -> None:
    kept: list[np.ndarray] = []
    found = watch_memory(lambda: kept.append(np.ones(2**17)), early=10, calls=40, device=CPU)
    assert found["calls"][0] == 10
    assert found["calls"][-1] == 40
    held = found["bytes"]["resident"]
    assert len(held) == len(found["calls"])
    assert found["growth_bytes"]["resident"] == held[-1] - held[0]
    assert 28 * 2**20 < found["growth_bytes"]["resident"] < 40 * 2**20


def test_what_is_given_back_is_no_growth() -> None:
    found = watch_memory(lambda: np.ones(2**17), early=10, calls=40, device=CPU)
    assert found["growth_bytes"]["resident"] < 8 * 2**20


def test_steps_of_the_long_play_are_calls_times_streams(in_this_process: None) -> None:
    record, table = measure_growth(PLAN, 3, 40, 1, CPU)
    assert record["calls"][-1] == 14
    assert record["steps"] == [3 * call for call in record["calls"]]
    assert record["ended"] > 0
    assert "42 imagined steps" in table.title
    assert len(table.rows) == 1


# ---------------------------------------------------------------- options and the script


@pytest.mark.parametrize(
    "bad",
    [
        *({"steps": 1}, {"steps": 31}, {"rounds": 0}, {"horizon": 0}, {"starts": 0}, {"memory_streams": 0}),
        *({"streams": ()}, {"streams": (0,)}, {"store": Path("data")}),
    ],
    ids=str,
)
def test_impossible_options_are_refused(bad: dict[str, Any]) -> None:
    flag = next(iter(bad)).replace("_", "-")
    with pytest.raises(InputError, match=f"--{flag} .*(expected|without --world)"):
        EnvBenchmark(**bad)


def test_a_trained_world_is_played_from_its_store(tmp_path: Path, in_this_process: None) -> None:
    tiny_world().save_pretrained(tmp_path / "world")
    tiny_store(tmp_path / "data")
    report = EnvBenchmark(world=str(tmp_path / "world"), store=tmp_path / "data", quick=True).measure()
    found = report.results["cpu"]
    assert found["start_up"]["starts"] == 4
    assert report.settings["store"] == str(tmp_path / "data")
    # Its environment is registered nowhere; the imagined ones are there all the same.
    assert "SyncVectorEnv of ImaginedEnv" in {record["contestant"] for record in found["steps"]}
    assert any(note.startswith("without the real environment: no environment is called") for note in report.notes)


def test_the_script_prints_tables_and_writes_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["benchmark.py", "env", "--quick", "--json", str(tmp_path / "figures.json")]
    monkeypatch.setattr(sys, "argv", words)
    benchmark.main()
    printed = capsys.readouterr().out
    assert "steps/s" in printed
    assert "load" in printed
    assert "growth, MiB" in printed
    record = json.loads((tmp_path / "figures.json").read_text())
    assert record["subject"] == "env"
    assert record["settings"]["config"] == "tiny_world.yaml"
    assert "top_p" in record["settings"]["sampling"]
    assert record["hardware"]["load_average"]
    found = record["results"]["cpu"]
    peers = {"SyncVectorEnv of ImaginedEnv", "SyncVectorEnv of the real TinyWorld"}
    assert {row["contestant"] for row in found["steps"]} == {BARE, BARE_ROWS, ENV_ENDLESS, ENV} | peers
    assert {row["streams"] for row in found["steps"]} == {2}
    assert {row["begun"] for row in found["resets"]} == set(WAYS)
    assert found["start_up"]["seconds"] > 0
    memory = found["memory"]
    assert memory["steps"][-1] == record["settings"]["steps"]
    assert memory["growth_bytes"].keys() == memory["bytes"].keys() == {"resident"}
    assert len(memory["bytes"]["resident"]) == len(memory["steps"])


def test_without_peers_the_worlds_own_contestants_are_left(in_this_process: None) -> None:
    report = EnvBenchmark(quick=True, peers=False).measure()
    assert {row["contestant"] for row in report.results["cpu"]["steps"]} == {BARE, BARE_ROWS, ENV_ENDLESS, ENV}
