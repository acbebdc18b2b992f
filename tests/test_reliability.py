"""Every promise of the project, tried a few times (`python tests/reliability` tries each many times); and each
experiment reports the fault that is planted here.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from processes import ROOT, run
from reliability import codec, crashes, damage, kills
from reliability.guarantees import GUARANTEES
from reliability.outcome import Experiment, Guarantee, Outcome

from vqvideo.codec import container, samplers
from vqvideo.codec.tables import tables
from vqvideo.errors import InputError
from vqvideo.storage import checkpoint, files
from vqvideo.training import trainer


@pytest.mark.parametrize("guarantee", GUARANTEES, ids=lambda guarantee: guarantee.key)
def test_the_promise_is_kept(guarantee: Guarantee, tmp_path: Path) -> None:
    outcome = guarantee.experiment(tmp_path, guarantee.fast, 0)
    assert not outcome.failures
    assert outcome.trials >= guarantee.fast


def test_every_promise_is_a_sentence_with_a_name_of_its_own() -> None:
    assert len({guarantee.key for guarantee in GUARANTEES}) == len(GUARANTEES)
    for guarantee in GUARANTEES:
        assert guarantee.promise[0].isupper()
        assert guarantee.promise.endswith(".")
        assert guarantee.long >= guarantee.fast > 0


def test_the_command_prints_a_line_for_each_experiment_and_works_in_the_named_folder(tmp_path: Path) -> None:
    arguments = ("damaged-stores", "--trials", 80, "--work", tmp_path)
    ended = run(sys.executable, ROOT / "tests" / "reliability", *arguments, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert (ended.code, ended.err) == (0, "")
    assert "damaged-stores" in ended.out
    assert "trials   0 broken" in ended.out
    assert list(tmp_path.iterdir()) == []


def test_the_last_run_of_all_experiments_is_shown() -> None:
    results = json.loads((ROOT / "configs" / "results" / "reliability.json").read_text())["results"]
    page = (ROOT / "configs" / "results" / "README.md").read_text()
    assert all(f"| {key} | {record['trials']:,} | 0 |" in page for key, record in results.items())
    assert results.keys() >= {guarantee.key for guarantee in GUARANTEES}


# ---------------------------------------------------------------- planted faults


def reported(outcome: Outcome, *words: str) -> bool:
    """Whether one of the failures has all these words."""
    return any(all(word in failure for word in words) for failure in outcome.failures)


def unchanged(*arguments: object, **named: object) -> None:
    """Does nothing."""


def train_without_the_optimizers_past(folder: Path) -> None:
    trainer.load_optimizer = unchanged  # type: ignore[assignment]
    kills.TOKENIZER.run(folder)


def record_from_the_beginning_only(folder: Path) -> None:
    if (folder / "manifest.jsonl").exists():
        raise InputError("there is something already")
    kills.RECORDING.run(folder)


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (replace(kills.TOKENIZER, run=train_without_the_optimizers_past), "average"),
        (replace(kills.RECORDING, run=record_from_the_beginning_only), "there is something already"),
    ],
    ids=["training", "recording"],
)
def test_a_job_that_does_not_go_on_as_it_was_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: kills.Job, words: str
) -> None:
    monkeypatch.setattr(kills, "MOST_FAILURES", 1)
    assert reported(kills.killed(job, tmp_path, 30, 0), words)


def swapped_with_a_gap(temporary: Path, path: Path) -> None:
    if path.exists():
        os.rename(path, path.with_name("gone"))
    os.rename(temporary, path)
    files.sync_folder(path.parent)


def unsynced(path: Path, data: bytes) -> None:
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "broken", "ending"),
    [
        ("swap_in", swapped_with_a_gap, crashes.crash),
        ("sync_folder", unchanged, crashes.lose_power),
        ("write_new", unsynced, crashes.lose_power),
    ],
)
def test_a_save_that_a_crash_can_break_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, broken: Callable[..., Any], ending: crashes.Ending
) -> None:
    monkeypatch.setattr(files, name, broken)
    monkeypatch.setattr(crashes, "SAVES", (crashes.MODEL,))
    assert reported(crashes.ended_everywhere(ending, tmp_path, 1, 0), "exported model, call")


def read_unverified(path: Path, expected: files.FileRecord) -> bytes:
    return Path(path).read_bytes()


def read_and_name_nothing(path: Path, expected: files.FileRecord) -> bytes:
    if files.sha256_file(path) != expected.sha256:
        raise InputError("something is wrong somewhere")
    return Path(path).read_bytes()


@pytest.mark.parametrize(
    ("experiment", "module", "name", "broken", "words"),
    [
        (damage.damaged_models, files, "read_verified", read_unverified, ("world/model.safetensors", "was used")),
        (damage.damaged_models, files, "read_verified", read_and_name_nothing, ("does not name the file",)),
        (damage.damaged_models, checkpoint.log, "warning", unchanged, ("average", "replaced without a warning")),
        (damage.damaged_stores, files, "verify_file", unchanged, ("000000.safetensors", "flipped: was used")),
        (damage.damaged_stores, files, "verify_file", unchanged, ("codes.safetensors", "flipped: was used")),
    ],
    ids=["models", "nameless", "silent", "episodes", "codes"],
)
def test_files_that_are_not_checked_are_reported(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    experiment: Experiment,
    module: Any,
    name: str,
    broken: Callable[..., Any],
    words: tuple[str, ...],
) -> None:
    tried = damage.tried

    def broken_from_now_on(*arguments: Any) -> Outcome:
        monkeypatch.setattr(module, name, broken)
        return tried(*arguments)

    monkeypatch.setattr(damage, "tried", broken_from_now_on)
    assert reported(experiment(tmp_path, 400, 0), *words)


def tables_that_differ(logits: torch.Tensor) -> Any:
    return tables(logits + torch.rand_like(logits))


@pytest.mark.parametrize(
    ("experiment", "trials", "module", "name", "broken"),
    [
        (codec.damaged, 70, container, "zlib", SimpleNamespace(crc32=lambda *_: 0)),
        (codec.round_trips, 8, samplers, "tables", tables_that_differ),
    ],
    ids=["checksums", "tables"],
)
def test_a_codec_that_loses_something_is_reported(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    experiment: Experiment,
    trials: int,
    module: Any,
    name: str,
    broken: Any,
) -> None:
    monkeypatch.setattr(module, name, broken)
    assert experiment(tmp_path, trials, 0).failures
