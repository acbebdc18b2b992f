"""Batches from processes: order, shared memory, and failures told as what they are."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from stores import flip
from tiny_models import tiny_experiment, tiny_store, train_config
from torch import Tensor
from torch.utils.data import Dataset

from vqvideo.data.index import episode_file
from vqvideo.errors import InputError
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.training.launch import make_accelerator
from vqvideo.training.loader import Loader, LoaderDiedError, WithStills, check_shared_memory, explained

Usage = namedtuple("Usage", "total used free")


class Rows(Dataset[dict[str, Tensor]]):
    """Ten rows of 1 KiB."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": torch.full((1024,), index, dtype=torch.uint8)}


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_follow_from_the_micro_step_alone(tmp_path: Path, workers: int) -> None:
    cfg = train_config(workers=workers, batch=4, accumulate=2)
    batches = Loader(Rows(), cfg, make_accelerator(cfg, tmp_path))
    whole = [batch["x"][:, 0].tolist() for batch in batches(0, 12)]
    assert [batch["x"][:, 0].tolist() for batch in batches(7, 12)] == whole[7:]
    assert sorted(row for batch in whole[:5] for row in batch) == list(range(10))


def test_too_little_shared_memory_is_refused_with_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = train_config(workers=3, batch=8, accumulate=2)
    clips = Loader(Rows(), cfg, make_accelerator(cfg, tmp_path))
    both = WithStills(clips, clips)
    # Rows of 1 KiB, 4 of them in a micro batch, 2 ahead for each process and 2 more.
    assert clips.shared_bytes == 1024 * 4 * 8
    assert both.shared_bytes == 2 * clips.shared_bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, clips.shared_bytes))
    check_shared_memory(clips)
    with pytest.raises(InputError, match=r"need 0\.1 MiB in /dev/shm, 0\.0 MiB are free: .*--shm-size.*workers 0"):
        check_shared_memory(both)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(InputError, match="loader processes need"):
        check_shared_memory(clips)


def test_without_loader_processes_no_shared_memory_is_needed(tmp_path: Path) -> None:
    cfg = train_config(workers=0)
    assert Loader(Rows(), cfg, make_accelerator(cfg, tmp_path)).shared_bytes == 0


def test_a_damaged_episode_is_named_by_a_loader_process_too(tmp_path: Path) -> None:
    store = tiny_store(tmp_path / "data")
    bad = next(entry for entry in store.split("train") if entry.index)
    flip(tmp_path / "data" / episode_file(bad.index), -1)
    with pytest.raises(InputError) as error:
        train_vqvae(tiny_experiment(tmp_path, workers=2, batch=8), store)
    assert str(error.value).startswith(str(tmp_path / "data" / episode_file(bad.index)))
    assert "Traceback" not in str(error.value)


def test_a_dead_loader_process_is_told_as_one_and_other_errors_are_not() -> None:
    told = r"^DataLoader worker \(pid 7\) is killed; nothing .*--resume.*\(3; 0 "
    with pytest.raises(LoaderDiedError, match=told) as e, explained(3):
        raise RuntimeError("DataLoader worker (pid 7) is killed.\nMore")
    assert e.value.exit_code == 1
    with pytest.raises(RuntimeError, match=r"^out of memory$"), explained(3):
        raise RuntimeError("out of memory")
    with pytest.raises(InputError, match=r"^a bad flag$"), explained(3):
        raise InputError("a bad flag")
