"""anomaly.py: a frozen episode is found in a world of its own kind, and what is missing is said."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import SIZE, tiny_store, tiny_world
from videos import moving_frames, read_video, write_video

from vqvideo.scripts import anomaly

Called = Callable[..., tuple[int, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny_world().save_pretrained(tmp_path / "world")
    tiny_store(tmp_path / "data")
    write_video(tmp_path / "film.mkv", moving_frames(12, (SIZE, SIZE)))
    return tmp_path


def test_table_plot_and_film_are_written(home: Path, called: Called) -> None:
    words = ("data", "--episode", "1", "--world", "world", "--rate", "0.2", "--threads", "1")
    code, said = called(anomaly.main, *words)
    assert (code, "of 12 latent steps are alarms" in said) == (0, True)
    out = home / "anomalies" / "data"
    with open(out / "steps.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in rows] == list(range(2, 26, 2))
    assert all(float(row["nats_of_the_worst"]) >= float(row["nats"]) > 0 for row in rows)
    assert (out / "scores.png").is_file()
    assert len(read_video(out / "film.mp4")) == 24


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing.mp4",), "nothing.mp4: no such film or store"),
        (("film.mkv",), "film.mkv: what is normal? Name a store of normal episodes: --normal"),
        (("film.mkv", "--normal", "data", "--rate", "0.2"), "this world has actions"),
        (("data", "--rate", "0.0001"), "too few for 0.0001 false alarms a step"),
        (("data", "--episode", "9"), "no episode 9"),
    ],
)
def test_what_is_missing_is_said(words: tuple[str, ...], message: str, home: Path, called: Called) -> None:
    code, said = called(anomaly.main, *words, "--world", "world", "--threads", "1")
    assert code == 2
    assert message in said
    assert "Traceback" not in said
    assert not (home / "anomalies").exists()
