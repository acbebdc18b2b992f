"""What the last stage would refuse, scripts refuse before the first one begins."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from read_only import read_only
from tiny_models import tiny_store

from vqvideo.data.config import RecordConfig
from vqvideo.scripts import (
    bakeoff,
    bakeoff_prior,
    benchmark,
    evaluate,
    evaluate_dreams,
    evaluate_world,
    improve,
    quickstart,
    train_agent,
    train_vqvae,
)
from vqvideo.storage.files import DiskError


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (train_vqvae.main, "--record.frame-size 84", "--record.frame-size 84: .* --frame-size 80 or 88"),
        (
            train_vqvae.main,
            "--record.frame-size 72 --prior.model.patch 2",
            "grid of 9x9 .* --frame-size 64 or 80, or .*patch 1",
        ),
        (train_vqvae.main, "--record.steps 11", "12 frames, and --prior.latent-steps 17 takes clips of 33"),
        (
            train_vqvae.main,
            "--runs taken",
            "car_racing/vqvae: cannot be written .Not a dir.*: choose .* --runs",
        ),
        (train_vqvae.main, "--name /tmp/x", "--name '/tmp/x' is no folder inside of runs"),
        (quickstart.main, "--record.frame-size 70", "--record.frame-size 70: .* --frame-size 64 or 72"),
        (quickstart.main, "--record.steps 30", "3 latent steps to see and 16 to dream on take 37: .* 36 steps"),
        (quickstart.main, "--prior.model.window 2", "a context of 3 latent steps, the prior looks back over 2"),
        (improve.main, "--record.held-out-every 1", "holds every episode out"),
        (improve.main, "--agent.context 2", "--agent.context: a context of 2 latent steps, .* looks back over 1"),
        (train_agent.main, "--runs taken", "taken/tiny_world/agent: cannot be written .Not a directory"),
        (bakeoff.main, "--record.frame-size 60", "--record.frame-size 60: .* --frame-size 56 or 64"),
    ],
)
def test_scripts_refuse_before_the_first_stage_what_the_last_would(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    called: Callable[..., tuple[int, str]],
    main: Callable[[], None],
    words: str,
    message: str,
) -> None:
    if main in (improve.main, train_agent.main):
        pytest.importorskip("stable_baselines3")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    code, shown = called(main, "--record.env", "TinyWorld", *words.split())
    assert code == 2, shown
    assert re.search(message, shown), shown
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (evaluate.main, "--runs taken"),
        (evaluate_dreams.main, "--json taken/figures.json"),
        (evaluate_world.main, "--json taken/figures.json"),
        (benchmark.main, "tokenizer --json taken/figures.json"),
        (bakeoff_prior.main, "--plot taken/plot.png"),
    ],
)
def test_a_place_for_figures_that_cannot_be_written_is_known_before_they_are_measured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    called: Callable[..., tuple[int, str]],
    main: Callable[[], None],
    words: str,
) -> None:
    if main is bakeoff_prior.main:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    code, shown = called(main, *words.split())
    assert code == 2, shown
    assert re.search(r"taken.*: cannot be written .Not a directory", shown), shown


def test_the_quickstart_takes_the_episodes_of_a_store_that_it_cannot_write(tmp_path: Path) -> None:
    store = tiny_store(tmp_path / "data")
    record = RecordConfig(env="TinyWorld", out=store.path, episodes=48)
    with read_only(tmp_path):
        assert quickstart.recorded(record).digest == store.digest
        with pytest.raises(DiskError, match="none: cannot be written"):
            quickstart.recorded(replace(record, out=tmp_path / "none"))
