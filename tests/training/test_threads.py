"""Threads that follow the load: chosen from the seconds of steps alone, here of machines that are made up."""

from __future__ import annotations

import json
from collections.abc import Callable
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
from vqvideo.training.threads import FollowingThreads, following_threads
from vqvideo.training.trainer import Trainer

Machine = Callable[[int], float]
"""Seconds of a step on so many threads."""


def quiet(threads: int) -> float:
    return {1: 0.43, 2: 0.29}[threads]


def busy(threads: int) -> float:
    return {1: 0.47, 2: 3.7}[threads]


def run(chooser: FollowingThreads, machine: Machine, seconds: float) -> list[int]:
    """Takes steps on a machine for so long. Returns the threads of each."""
    taken, passed = [], 0.0
    while passed < seconds:
        taken.append(chooser.now)
        step = machine(chooser.now)
        chooser.took(step)
        passed += step
    return taken


def test_a_run_leaves_the_threads_that_wait_for_a_busy_core_within_seconds_and_comes_back_to_them() -> None:
    chooser = FollowingThreads(2, single=False)
    run(chooser, quiet, 60)
    assert chooser.kept == 2
    run(chooser, busy, 15)
    assert chooser.kept == 1
    run(chooser, quiet, 90)
    assert chooser.kept == 2


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize(("machine", "best"), [(quiet, 2), (busy, 1)])
def test_trials_cost_little_while_nothing_changes(machine: Machine, best: int, single: bool) -> None:
    chooser = FollowingThreads(2, single=single)
    run(chooser, machine, 15)
    steps = run(chooser, machine, 600)
    assert chooser.kept == best
    assert set(steps) == {1, 2}, "it goes on looking"
    assert sum(map(machine, steps)) < 1.06 * len(steps) * machine(best)


def test_a_single_slow_step_changes_nothing() -> None:
    chooser = FollowingThreads(2, single=False)
    run(chooser, quiet, 60)
    chooser.took(30.0)
    run(chooser, quiet, 10)
    assert chooser.kept == 2


def test_a_small_difference_is_taken_for_noise() -> None:
    chooser = FollowingThreads(2, single=False)
    run(chooser, lambda threads: {1: 0.095, 2: 0.1}[threads], 300)
    assert chooser.kept == 2


def test_steps_of_milliseconds_are_compared_by_more_than_three() -> None:
    chooser = FollowingThreads(2, single=True)
    steps = run(chooser, lambda threads: {1: 0.001, 2: 0.0011}[threads], 4)
    assert steps.count(2) > 50
    assert chooser.kept == 1


def test_a_step_of_minutes_is_tried_once_on_the_slower_number_and_then_seldom() -> None:
    chooser = FollowingThreads(2, single=True)
    steps = run(chooser, lambda threads: {1: 60.0, 2: 600.0}[threads], 3600 * 4)
    assert steps.count(2) <= 2


def test_ranks_that_are_told_the_same_seconds_choose_alike() -> None:
    few, many = FollowingThreads(1, single=False), FollowingThreads(8, single=False)
    for step in range(400):
        seconds = 0.4 if many.now == 1 else 0.2 + 3 * (100 < step < 300)
        few.took(seconds)
        many.took(seconds)
        assert (few.single, few.now) == (many.single, 1)


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
def test_only_a_run_by_the_clock_follows_the_load_unless_it_is_asked_to(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], follows: bool
) -> None:
    monkeypatch.setattr(following, "available_cores", lambda: 4)
    cfg = TrainConfig(**settings)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert (following_threads(cfg, on_cpu=True) is not None) == follows
    assert following_threads(cfg, on_cpu=False) is None
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert following_threads(cfg, on_cpu=True) is None, "each has a core of its own"


def test_a_setting_that_is_neither_a_number_nor_follow_is_refused_with_both() -> None:
    with pytest.raises(InputError, match="threads is 'folow', expected int or 'follow'"):
        from_plain(TrainConfig, {"threads": "folow"})
    with pytest.raises(InputError, match=r"train\.threads is 0, expected at least 1"):
        TrainConfig(threads=0)
    assert TrainConfig(threads="follow", max_seconds=None).follows_load


# ---------------------------------------------------------------- in a run


def pretend(monkeypatch: pytest.MonkeyPatch, trainer: Trainer, machine: Machine) -> list[int]:
    """Has a run's steps take as long as on a machine of two cores. Returns the threads that are set for each."""
    monkeypatch.setattr(following, "available_cores", lambda: 2)
    count, after, taken = [2], trainer._after_step, []
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: count.append(threads))
    monkeypatch.setattr(torch, "get_num_threads", lambda: count[-1])

    def timed(seconds: float, stop: Any) -> int:
        taken.append(count[-1])
        return after(machine(count[-1]), stop)

    monkeypatch.setattr(trainer, "_after_step", timed)
    return taken


def test_a_run_tells_and_logs_that_it_changed_its_threads_and_goes_on_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = toy_trainer(tmp_path, steps=60, threads="follow", log_every=10)
    taken = pretend(monkeypatch, trainer, busy)
    trainer.fit(toy_batches(4), no_figures)
    assert (taken[0], taken[-1]) == (2, 1)
    assert capsys.readouterr().out.count("threads 1: 0.47 s a step, with 2 it was 3.7") == 1
    logged = [r["threads"] for r in trainer.run.records() if r["split"] == "train"]
    assert logged[-1] == 1
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
            pretend(patch, trainer, busy)
            trainer.fit(toy_batches(4), no_figures)
            states.append(trainer.model.state_dict())
    # A toy is computed on one thread, however many there are.
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_run_of_given_steps_leaves_its_threads_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = toy_trainer(tmp_path, steps=40, threads=None)
    taken = pretend(monkeypatch, trainer, busy)
    trainer.fit(toy_batches(4), no_figures)
    assert set(taken) == {2}
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
