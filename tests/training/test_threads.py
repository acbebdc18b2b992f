"""Threads that follow the load: chosen from the seconds of steps alone, here of machines that are made up."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import no_figures, toy_batches, toy_trainer
from tiny_models import train_config

from vqvideo.errors import InputError
from vqvideo.storage.records import from_plain
from vqvideo.training import threads as following
from vqvideo.training.config import TrainConfig
from vqvideo.training.threads import FollowingThreads, Way, following_threads
from vqvideo.training.trainer import Trainer

Machine = Callable[[Way], float]
"""Seconds of a step that is computed in some way."""
ALL, ASLEEP, ONE = Way(2), Way(2, spinning=False), Way(1)
WAYS = (ALL, ASLEEP, ONE)
QUIET = {ALL: 0.29, ASLEEP: 0.36, ONE: 0.43}.__getitem__
BUSY = {ALL: 3.7, ASLEEP: 0.6, ONE: 0.47}.__getitem__
CROWDED = {ALL: 9.0, ASLEEP: 0.8, ONE: 1.4}.__getitem__


def run(chooser: FollowingThreads, machine: Machine, seconds: float) -> list[Way]:
    """Takes steps on a machine for so long. Returns how each was computed."""
    taken, passed = [], 0.0
    while passed < seconds:
        taken.append(chooser.now)
        step = machine(chooser.now)
        chooser.took(step)
        passed += step
    return taken


@pytest.mark.parametrize(("load", "best"), [(BUSY, ONE), (CROWDED, ASLEEP)])
def test_a_run_leaves_threads_that_wait_for_a_busy_core_within_seconds_and_comes_back_to_them(
    load: Machine, best: Way
) -> None:
    chooser = FollowingThreads(WAYS)
    run(chooser, QUIET, 60)
    assert chooser.kept == ALL
    run(chooser, load, 40)
    assert chooser.kept == best
    run(chooser, QUIET, 300)
    assert chooser.kept == ALL


@pytest.mark.parametrize("first", range(3))
@pytest.mark.parametrize(("machine", "best"), [(QUIET, ALL), (BUSY, ONE), (CROWDED, ASLEEP)])
def test_trials_cost_little_while_nothing_changes(machine: Machine, best: Way, first: int) -> None:
    chooser = FollowingThreads(WAYS, first)
    run(chooser, machine, 40)
    steps = run(chooser, machine, 900)
    assert chooser.kept == best
    assert set(steps) == set(WAYS), "it goes on looking"
    assert sum(map(machine, steps)) < 1.07 * len(steps) * machine(best)


def test_a_single_slow_step_changes_nothing() -> None:
    chooser = FollowingThreads(WAYS)
    run(chooser, QUIET, 60)
    chooser.took(30.0)
    run(chooser, QUIET, 10)
    assert chooser.kept == ALL


def test_stalls_in_some_steps_count_though_most_steps_are_fast() -> None:
    chooser = FollowingThreads((ALL, ONE))
    stalling = cycle([0.1, 0.1, 0.6])
    run(chooser, lambda way: 0.14 if way == ONE else next(stalling), 30)
    assert chooser.kept == ONE


def test_where_steps_take_seconds_two_of_them_are_enough_to_leave_a_way_and_one_to_see_a_better_one() -> None:
    chooser = FollowingThreads(WAYS)
    steps = run(chooser, {ALL: 6.0, ASLEEP: 1.4, ONE: 1.5}.__getitem__, 60)
    assert steps[:4] == [ALL, ALL, ASLEEP, ASLEEP]
    assert steps.count(ALL) < 5


def test_a_small_difference_is_taken_for_noise() -> None:
    chooser = FollowingThreads(WAYS)
    run(chooser, {ALL: 0.1, ASLEEP: 0.093, ONE: 0.095}.__getitem__, 300)
    assert chooser.kept == ALL


def test_steps_of_milliseconds_are_compared_by_more_than_three() -> None:
    chooser = FollowingThreads((ALL, ONE), 1)
    steps = run(chooser, {ONE: 0.001, ALL: 0.0011}.__getitem__, 6)
    assert steps.count(ALL) > 500
    assert chooser.kept == ONE


def test_a_step_of_minutes_is_tried_once_in_the_slower_way_and_then_seldom() -> None:
    chooser = FollowingThreads((ALL, ONE), 1)
    steps = run(chooser, {ONE: 60.0, ALL: 600.0}.__getitem__, 3600 * 4)
    assert 1 <= steps.count(ALL) <= 2


def test_ranks_that_are_told_the_same_seconds_choose_alike() -> None:
    few, many = FollowingThreads((Way(1), Way(1, spinning=False), Way(1))), FollowingThreads(WAYS)
    kept = set()
    for step in range(900):
        seconds = (CROWDED if 100 < step < 300 else QUIET)(many.now)
        few.took(seconds)
        many.took(seconds)
        kept.add(many.kept)
        assert few._kept == many._kept
        assert few._trying == many._trying
    assert len(kept) > 1


@pytest.mark.parametrize(
    ("settings", "follows"),
    [
        ({}, False),
        ({"threads": "follow"}, True),
        ({"max_seconds": 9.0}, True),
        ({"min_seconds": 9.0}, True),
        ({"max_seconds": 9.0, "threads": 2}, False),
    ],
)
def test_only_a_run_by_the_clock_changes_its_number_of_threads_unless_it_is_asked_to(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], follows: bool
) -> None:
    monkeypatch.setattr(following, "available_cores", lambda: 4)
    cfg = TrainConfig(**settings)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    for name in ("LOCAL_WORLD_SIZE", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    chooser = following_threads(cfg, on_cpu=True)
    assert chooser is not None
    assert {way.threads for way in chooser.ways} == ({1, 4} if follows else {4})
    assert following_threads(cfg, on_cpu=False) is None
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    chooser = following_threads(cfg, on_cpu=True)
    assert (chooser.ways if chooser else None) == ((Way(4), Way(1)) if follows else None), "the user chose"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    chooser = following_threads(cfg, on_cpu=True)
    assert (chooser.now if chooser else None) == (Way(1) if follows else None)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert following_threads(cfg, on_cpu=True) is None, "each has a core of its own"


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp's")
def test_threads_that_sleep_while_they_wait_compute_the_same_bits_and_end_when_they_are_not_wanted() -> None:
    before, running = torch.get_num_threads(), threading.active_count()
    x = torch.randn(400, 400, generator=torch.Generator().manual_seed(0))
    found = []
    try:
        for way in (ALL, ASLEEP, ASLEEP, ALL, ASLEEP, ONE):
            way.take()
            assert torch.get_num_threads() == way.threads
            assert threading.active_count() == running + (way == ASLEEP)
            found.append((x @ x).tanh().sum())
    finally:
        Way(before).take()
    assert all(torch.equal(value, found[0]) for value in found[:-1])


def test_a_setting_that_is_neither_a_number_nor_follow_is_refused_with_both() -> None:
    with pytest.raises(InputError, match="threads is 'folow', expected int or 'follow'"):
        from_plain(TrainConfig, {"threads": "folow"})
    with pytest.raises(InputError, match=r"train\.threads is 0, expected at least 1"):
        TrainConfig(threads=0)
    assert TrainConfig(threads="follow", max_seconds=None).follows_load


# ---------------------------------------------------------------- in a run


def pretend(monkeypatch: pytest.MonkeyPatch, trainer: Trainer, machine: Machine) -> list[Way]:
    """Has a run's steps take as long as on a machine of two cores. Returns how each was computed."""
    monkeypatch.setattr(following, "available_cores", lambda: 2)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    after, taken = trainer._after_step, [ALL]
    monkeypatch.setattr(Way, "take", lambda way: taken.append(way))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def timed(seconds: float, stop: Any) -> int:
        return after(machine(taken[-1]), stop)

    monkeypatch.setattr(trainer, "_after_step", timed)
    return taken


def test_a_run_tells_and_logs_that_it_changed_its_threads_and_goes_on_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = toy_trainer(tmp_path, steps=60, threads="follow", log_every=10)
    taken = pretend(monkeypatch, trainer, BUSY)
    trainer.fit(toy_batches(4), no_figures)
    assert (taken[0], trainer._threads and trainer._threads.kept) == (ALL, ONE)
    told = "on 2 threads that sleep while they wait: 0.6 s a step, on 2 threads it was 3.7"
    assert capsys.readouterr().out.count(told) == 1
    logged = [(r["threads"], r["spinning"]) for r in trainer.run.records() if r["split"] == "train"]
    assert logged[-1] == (1, 1)
    again = toy_trainer(tmp_path, resume=True, steps=80, threads="follow")
    assert again.resume()
    again.fit(toy_batches(4), no_figures)
    assert again.step == 80


def test_a_run_that_follows_the_load_sees_the_same_data_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    for name, threads in (("follows", "follow"), ("one", 1)):
        with monkeypatch.context() as patch:
            trainer = toy_trainer(tmp_path / name, steps=40, threads=threads)
            pretend(patch, trainer, BUSY)
            trainer.fit(toy_batches(4), no_figures)
            states.append(trainer.model.state_dict())
    # A toy is computed on one thread, however many there are.
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_run_of_given_steps_only_changes_how_its_threads_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = toy_trainer(tmp_path, steps=40, threads=None)
    taken = pretend(monkeypatch, trainer, BUSY)
    trainer.fit(toy_batches(4), no_figures)
    assert set(taken) == {ALL, ASLEEP}
    assert "threads" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_run_that_the_clock_cut_short_says_so_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = toy_trainer(tmp_path / "prior", steps=1400, max_seconds=9.0)
    after = trainer._after_step
    monkeypatch.setattr(trainer, "_after_step", lambda seconds, stop: after(3.0, stop))
    trainer.fit(toy_batches(4), no_figures)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "stopped" in line]
    assert line.startswith("stopped by the clock after 3 of 1,400 steps: --prior.train.max-seconds is 9. ")
    assert json.loads((tmp_path / "prior" / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 3
    toy_trainer(tmp_path / "all", steps=6, max_seconds=1e6).fit(toy_batches(4), no_figures)
    assert "stopped" not in capsys.readouterr().out


def test_threads_may_change_between_the_parts_of_a_run(tmp_path: Path) -> None:
    toy_trainer(tmp_path).fit(toy_batches(4), no_figures)
    assert toy_trainer(tmp_path, resume=True, threads="follow").resume()
    assert train_config(threads="follow").follows_load
