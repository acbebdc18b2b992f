"""evaluate_anomalies.py: tables, figures and a picture of a tiny world; what is missing is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import SIZE, tiny_world

from vqvideo.data.config import RecordConfig
from vqvideo.envs.recording import record
from vqvideo.scripts import evaluate_anomalies

Called = Callable[..., tuple[int, str]]
WORDS = ("--world", "world", "--store", "data", "--threads", "1", "--json", "figures.json", "--no-neighbour")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny_world(2, action_dropout=0.1).save_pretrained(tmp_path / "world")
    sizes = {"episodes": 12, "steps": 60, "frame_size": SIZE, "held_out_every": 1}
    record(RecordConfig(env="TinyWorld", out=tmp_path / "data", workers=0, **sizes))
    return tmp_path


def test_tables_figures_and_a_picture_are_made(home: Path, called: Called) -> None:
    words = (*WORDS, "--before", "2", "--after", "2", "--rate", "0.1", "--others", "CartPole-v1")
    code, said = called(evaluate_anomalies.main, *words)
    assert code == 0, said
    for found in ("dynamics: swapped actions opposite", "camera: frozen inf", "world: another CartPole-v1"):
        assert found in said
    figures = json.loads((home / "figures.json").read_text())["anomalies"]
    families = {trial["family"] for trial in figures["trials"]}
    assert families == {"dynamics", "appearance", "semantics", "camera", "world"}
    assert set(figures["false_alarms"]) == set(figures["trials"][0]["scores"])
    assert (home / "figures.png").stat().st_size > 10_000


def test_what_is_missing_is_said(home: Path, called: Called) -> None:
    code, said = called(evaluate_anomalies.main, *WORDS, "--before", "200")
    assert code == 2
    assert "clips of length" in said
    assert not (home / "figures.json").exists()
