"""The benchmark of large stores measures every stage of a small one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from vqvideo.errors import InputError
from vqvideo.scripts import benchmark
from vqvideo.scripts.benchmarks.store import STAGES, StoreBenchmark


def test_every_stage_is_measured_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, work = tmp_path / "figures.json", tmp_path / "work"
    work.mkdir()
    words = ["store", "--quick", "--json", str(figures), "--folder", str(work)]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words])
    benchmark.main()
    (record,) = json.loads(figures.read_text())["results"]["cpu"]
    assert "frames imported/s" in capsys.readouterr().out
    assert (record["frames"], record["import"]["count"]) == (300, 300)
    assert record["encode"]["count"] > 0
    assert record["clips"]["read_bytes"] > 9 * 64 * 64
    assert all(record[stage]["peak_bytes"] > 2**20 for stage in STAGES)
    assert not list(work.iterdir())


def test_a_store_without_frames_is_refused() -> None:
    with pytest.raises(InputError, match="--frames"):
        StoreBenchmark(frames=(1,))
