"""The benchmark of checkpoints: all contestants save the same tensors, and nothing of it stays behind."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from processes import SCRIPTS
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(SCRIPTS))

from vqvideo.errors import InputError
from vqvideo.scripts import benchmark
from vqvideo.scripts.benchmarks.checkpoint_savers import OURS, PLAIN, SAVERS, Saver, Shapes, loaders
from vqvideo.scripts.benchmarks.checkpoint_share import STAGES, Share
from vqvideo.scripts.benchmarks.checkpoint_speed import PIECES, Settled
from vqvideo.scripts.benchmarks.checkpoints import CheckpointBenchmark
from vqvideo.scripts.benchmarks.memory import in_fresh_process
from vqvideo.scripts.benchmarks.timing import take_turns
from vqvideo.storage.checkpoint import TrainingState, load_training, training_checkpoints

CPU = torch.device("cpu")
FEW = Shapes("few", ((3, 2), (5,)))
PARTS = ("model", "optimizer", "average")


def as_one(parts: dict[str, dict[str, Tensor]]) -> dict[str, list[float]]:
    return {f"{part}/{name}": value.flatten().tolist() for part in PARTS for name, value in parts[part].items()}


def test_a_state_has_the_size_that_is_asked_for() -> None:
    state = Shapes.of_size(16).state()
    assert sum(value.nbytes for part in PARTS for value in getattr(state, part).values()) == 16 * 2**20
    assert len(state.optimizer) == 2 * len(state.model) == 2 * len(state.average)


def test_ours_and_plain_files_hold_the_same_tensors(tmp_path: Path) -> None:
    for name in (OURS, PLAIN):
        (tmp_path / name).mkdir()
        work = Saver(name, FEW, tmp_path / name).prepare(CPU)
        work()
        work()
    expected = as_one(FEW.state()._asdict())
    (_, newest) = training_checkpoints(tmp_path / OURS)
    assert as_one(load_training(newest)._asdict()) == expected
    assert as_one({part: load_file(tmp_path / PLAIN / f"{part}.safetensors") for part in PARTS}) == expected


def saved_bytes(name: str, folder: Path) -> int:
    """Bytes of the files after a save of 4 MiB, those with random states left out."""
    Saver(name, Shapes.of_size(4), folder).prepare(CPU)()
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("random_states")]
    return sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("name", SAVERS)
def test_all_save_as_many_bytes(tmp_path: Path, name: str) -> None:
    # In a process of its own: Accelerate leaves state behind.
    assert in_fresh_process(saved_bytes, name, tmp_path) == pytest.approx(4 * 2**20, rel=0.02)


def test_both_ways_to_load_give_the_state(tmp_path: Path) -> None:
    for load in loaders(FEW, tmp_path).values():
        read = load()
        parts = read._asdict() if isinstance(read, TrainingState) else dict(zip(PARTS, read, strict=True))
        assert as_one(parts) == as_one(FEW.state()._asdict())


def test_the_rounds_of_a_save_are_those_after_the_warm_up() -> None:
    calls: list[int] = []
    settled = {"a": Settled(lambda: calls.append(1)), "b": Settled(lambda: None)}
    take_turns(settled, CPU, rounds=3, round_seconds=0.0)
    assert len(settled["a"].timing.rounds) == 3
    assert len(calls) == 5


def test_a_share_is_of_the_time_between_two_saves() -> None:
    assert Share("a", "cpu", every=500, step_seconds=0.1, save_seconds=1.0, bytes=1).percent == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [({"steps": 2}, "at least 3"), ({"rounds": 0}, "at least 1"), ({"folder": Path("no")}, "no such")],
)
def test_impossible_options_are_refused(bad: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CheckpointBenchmark(**bad)  # type: ignore[arg-type]


def test_the_script_prints_tables_writes_figures_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "disk").mkdir()
    figures = tmp_path / "figures.json"
    words = ["benchmark.py", "checkpoint", "--quick", "--folder", str(tmp_path / "disk"), "--json", str(figures)]
    monkeypatch.setattr(sys, "argv", words)
    benchmark.main()
    assert not list((tmp_path / "disk").iterdir())
    shown = capsys.readouterr().out
    assert "tiny_world, prior" in shown
    assert str(tmp_path) not in shown.replace(f"figures {figures}", "")
    found = json.loads(figures.read_text())["results"]
    assert {row["contestant"] for row in found["save"]} == set(SAVERS)
    assert all(row["seconds"] > 0 for row in found["save"] + found["load"])
    assert all(row["peak_bytes"] >= 0 for row in found["save"] if row["state"] == "4 MiB")
    assert [set(seconds) for seconds in found["parts_of_a_save"].values()] == [set(PIECES)] * 3
    assert [row["stage"] for row in found["share"]] == [f"tiny_world, {stage}" for stage in STAGES]
    assert all(row["percent"] > 0 and row["every"] == 500 for row in found["share"])
    assert str(tmp_path) not in figures.read_text()
