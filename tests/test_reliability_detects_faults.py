"""The experiments on kills, crashes, signals and faults notice when what they guard is broken."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from reliability import company, crashes, endings, kills, not_finite, stops
from reliability.lives import Life, Plan, Poison

from vqvideo.storage import files, locks
from vqvideo.training import finite, signals
from vqvideo.training import trainer as training


def poisoned(poison: Poison) -> type[Life]:
    """Lives in which something is broken, beside what the experiment itself breaks."""

    class Poisoned(Life):
        def __init__(self, plan: Plan, world: int = 1) -> None:
            super().__init__(replace(plan, poison=partial(both, poison, plan.poison)), world)

    return Poisoned


def both(one: Poison, other: Poison | None, rank: int, folder: Path) -> None:
    one(rank, folder)
    if other is not None:
        other(rank, folder)


def unchanged(*arguments: object, **named: object) -> None:
    """Does nothing."""


# ---------------------------------------------------------------- kills


def forget_the_optimizer(rank: int, folder: Path) -> None:
    training.load_optimizer = unchanged  # type: ignore[assignment]


def test_a_run_that_does_not_go_on_as_it_was_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kills, "Life", poisoned(forget_the_optimizer))
    outcome = kills.interrupted("vqvae", kills.stop_at_random, 1, tmp_path, 6, 0)
    assert not outcome.kept
    assert "average" in " ".join(outcome.failures)


# ---------------------------------------------------------------- crashes and power


def written_in_place(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def replaced_by_moving_the_old_one_away(one: Path, two: Path) -> None:
    if two.exists():
        os.rename(two, two.with_name("gone"))
    os.rename(one, two)


@pytest.mark.parametrize(
    ("name", "broken", "write"),
    [
        ("write_file", written_in_place, crashes.SingleFile),
        ("swap_in", replaced_by_moving_the_old_one_away, crashes.Model),
        ("standing", Path, crashes.Model),
    ],
)
def test_a_write_that_a_crash_can_break_is_noticed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    broken: Callable[..., Any],
    write: type[crashes.Write],
) -> None:
    monkeypatch.setattr(files, name, broken)
    monkeypatch.setattr(crashes, "WRITES", (write,))
    assert crashes.crash_everywhere(tmp_path, 1, 0).failures


def unsynced(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)


@pytest.mark.parametrize(("name", "broken"), [("sync_folder", unchanged), ("write_new", unsynced)])
def test_a_write_that_is_not_synced_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, broken: Callable[..., Any]
) -> None:
    monkeypatch.setattr(files, name, broken)
    monkeypatch.setattr(crashes, "WRITES", (crashes.SingleFile,))
    assert crashes.lose_power_everywhere(tmp_path, 1, 0).failures


# ---------------------------------------------------------------- signals and faults


def ignore_signals(rank: int, folder: Path) -> None:
    signals.StopSignal._remember = unchanged  # type: ignore[method-assign]


def test_a_training_that_does_not_listen_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stops, "PLACES", {"in a step": stops.slow_steps})
    monkeypatch.setattr(stops, "Life", poisoned(ignore_signals))
    (failure, *_) = stops.signals_everywhere(tmp_path, 1, 0).failures
    assert "exit codes [0], expected" in failure


def look_away(rank: int, folder: Path) -> None:
    finite.all_finite = lambda tensors: True  # type: ignore[assignment]


def test_a_statistic_that_is_not_looked_at_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(not_finite, "Life", poisoned(look_away))
    monkeypatch.setattr(not_finite, "CASES", ((not_finite.bad_statistic, "step 6: not finite: statistics", 1),))
    assert "the message is not step 6: not finite: statistics" in not_finite.not_finite(tmp_path, 1, 0).failures[0]


def take_no_lock(rank: int, folder: Path) -> None:
    locks.FolderLock.acquire = lambda self: self  # type: ignore[method-assign]


def test_two_trainings_in_one_folder_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(company, "Life", poisoned(take_no_lock))
    monkeypatch.setattr(endings, "Life", poisoned(take_no_lock))
    failures = " ".join(company.two_writers(tmp_path, 4, 0).failures)
    assert "second training: exit codes [0], expected 2" in failures
    assert "left no lock" in failures
