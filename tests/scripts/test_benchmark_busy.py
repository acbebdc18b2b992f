"""The benchmark of a busy machine: a row for each training and number of threads, and neighbours that end with it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from tiny_models import tiny_experiment

from vqvideo.errors import InputError
from vqvideo.scripts import benchmark
from vqvideo.scripts.benchmarks import busy
from vqvideo.storage.records import write_yaml


@pytest.mark.parametrize("cores", [1, 2])
def test_trainings_are_measured_beside_each_neighbour_on_one_thread_on_all_and_on_those_that_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cores: int
) -> None:
    (tmp_path / "tiny.yaml").write_text(write_yaml(tiny_experiment(tmp_path)))
    monkeypatch.setattr(busy, "NEIGHBOURS", {busy.QUIET: "", "something": "work = lambda: None"})
    for room in ("hardware", "threads"):
        monkeypatch.setattr(f"vqvideo.training.{room}.available_cores", lambda: cores)
    figures = tmp_path / "figures.json"
    words = ["busy", "--quick", "--config", str(tmp_path / "tiny.yaml"), "--json", str(figures)]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words])
    benchmark.main()
    assert "steps/s" in capsys.readouterr().out
    record = json.loads(figures.read_text())
    assert "GOMP_SPINCOUNT" in record["settings"]["environment"]
    found = {(row["stage"], row["beside"], row["threads"]) for row in record["results"]["cpu"]}
    threads = ["1"] if cores == 1 else ["1", "2", busy.FOLLOWING]
    assert found == {(s, b, t) for s in ("tokenizer", "prior") for b in (busy.QUIET, "something") for t in threads}
    assert all(row["steps_per_s"] > 0 for row in record["results"]["cpu"])


def test_a_neighbour_computes_until_the_block_is_left_also_by_an_error(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = f"import os, pathlib\npathlib.Path({str(note)!r}).write_text(str(os.getpid()))\nwork = lambda: None"

    def fail() -> None:
        with busy._beside(code):
            os.kill(int(note.read_text()), 0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    number = int(note.read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_no_time_to_measure_is_refused() -> None:
    with pytest.raises(InputError, match="--seconds is 0, expected more than 0"):
        busy.BusyBenchmark(seconds=0)
