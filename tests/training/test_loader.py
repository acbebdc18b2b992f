"""Batches from processes: order, shared memory, and failures by their names."""

from __future__ import annotations

import os
import shutil
import signal
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import flip
from tiny_models import tiny_experiment, tiny_store, train_config
from torch import Tensor
from torch.utils.data import Dataset

from vqvideo.data.index import episode_file
from vqvideo.errors import InputError
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.training.launch import make_accelerator
from vqvideo.training.loader import Loader, LoaderDiedError, StepBatches, WithStills, check_shared_memory

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


def test_a_loader_process_that_dies_is_named(tmp_path: Path) -> None:
    cfg = train_config(workers=2, batch=1)
    batches = Loader(Rows(), cfg, make_accelerator(cfg, tmp_path))
    source = batches(0, 10_000)
    next(source)
    victim = batches.processes[1].pid
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    named = rf"^loader process {victim} was killed by SIGKILL; nothing .*--resume.*\(2; 0 "
    with pytest.raises(LoaderDiedError, match=named) as e:
        list(source)
    assert e.value.exit_code == 1


class Faulty(Rows):
    """Fails as torch does when a loader process dies, but none does."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_data_set_is_not_taken_for_a_dead_process(tmp_path: Path, workers: int) -> None:
    cfg = train_config(workers=workers, batch=1)
    with pytest.raises(RuntimeError, match="is killed by signal") as error:
        next(Loader(Faulty(), cfg, make_accelerator(cfg, tmp_path))(0, 3))
    assert not isinstance(error.value, LoaderDiedError)


# ---------------------------------------------------------------- order


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(1, 50),
    share=st.integers(1, 8),
    world=st.integers(1, 4),
    epochs=st.integers(1, 4),
    seed=st.integers(0, 2**63),
)
def test_every_sample_comes_once_per_epoch(size: int, share: int, world: int, epochs: int, seed: int) -> None:
    batch = share * world
    steps = -(-size * epochs // batch)
    ranks = [StepBatches(size, batch, seed, stop=steps, rank=r, world=world) for r in range(world)]
    order = [index for parts in zip(*ranks, strict=True) for part in parts for index in part]
    assert order == [index for part in StepBatches(size, batch, seed, stop=steps) for index in part]
    for epoch in range(epochs):
        assert sorted(order[epoch * size : (epoch + 1) * size]) == list(range(size))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 30), st.integers(0, 9))
def test_a_resumed_order_is_the_tail_of_the_whole_one(size: int, batch: int, start: int, seed: int) -> None:
    whole = list(StepBatches(size, batch, seed, stop=30))
    resumed = StepBatches(size, batch, seed, start=start, stop=30)
    assert list(resumed) == whole[start:]
    assert len(resumed) == 30 - start
    assert resumed.indices(7) == whole[7]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    one, two = StepBatches(100, 100, 0, stop=2)
    assert one != two
    assert one != next(iter(StepBatches(100, 100, 1, stop=2)))


def test_the_order_never_changes_between_versions() -> None:
    """A golden number: a change here makes every interrupted run resume with other data."""
    assert StepBatches(8, 8, 0, stop=1).indices(0) == [0, 3, 7, 5, 1, 2, 6, 4]
