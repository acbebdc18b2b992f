"""Shared data sets are often read-only: everything that only reads episodes works with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from read_only import read_only
from tiny_models import tiny_experiment, tiny_store

from vqvideo.data.store import Store
from vqvideo.data.verify import verify
from vqvideo.errors import InputError
from vqvideo.experiment.config import Experiment, world_folder
from vqvideo.experiment.prior import train_prior
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.scripts import rollout
from vqvideo.world import WorldModel


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    tiny_store(tmp_path / "data")
    with read_only(tmp_path / "data"):
        yield Store.open(tmp_path / "data")


@pytest.fixture
def cfg(tmp_path: Path) -> Experiment:
    return tiny_experiment(tmp_path, steps=2)


def test_the_stub_of_a_read_only_disk_refuses_whatever_would_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before")
    with read_only(tmp_path):
        for write in (
            lambda: (tmp_path / "file").write_text("after"),
            lambda: (tmp_path / "new").touch(),
            lambda: (tmp_path / "folder").mkdir(),
            lambda: (tmp_path / "file").rename(tmp_path / "other"),
            lambda: (tmp_path / "file").unlink(),
        ):
            with pytest.raises(OSError, match="Read-only file system"):
                write()
        assert (tmp_path / "file").read_text() == "before"


def test_both_stages_train_and_dreams_begin_on_a_read_only_store(store: Store, cfg: Experiment) -> None:
    train_vqvae(cfg, store)
    train_prior(cfg, store)
    assert not (store.path / "codes").exists()
    made = sorted((cfg.folder / "prior" / "codes").iterdir())
    assert [path.name.split("-")[2] for path in made] == ["held_out", "train"]
    world = WorldModel.from_pretrained(world_folder(cfg))
    frames, _ = world.as_env(2, starts=store.path).reset(seed=0)
    assert np.asarray(frames).dtype == np.uint8
    options = rollout.Options(world=world_folder(cfg), store=store.path, context=2, length=3, clips=1, evaluate=2)
    assert rollout.rollout(options).picture.is_file()
    kinds = {found.kind for found in verify([store.path, cfg.folder]) if not found.damage}
    assert {"store", "codes", "model", "run"} <= kinds


def test_codes_are_the_same_wherever_they_are_kept(tmp_path: Path, store: Store, cfg: Experiment) -> None:
    train_vqvae(cfg, store)
    figures = train_prior(cfg, store)
    writable = tiny_store(tmp_path / "own")
    assert writable.digest == store.digest
    again = replace(cfg, name="again")
    train_vqvae(again, writable)
    assert train_prior(again, writable) == pytest.approx(figures, nan_ok=True)
    assert (writable.path / "codes").is_dir()
    assert not (again.folder / "prior" / "codes").exists()


def test_codes_that_a_read_only_store_holds_are_read_and_not_made_again(
    tmp_path: Path, cfg: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tiny_store(tmp_path / "data")
    train_vqvae(cfg, store)
    train_prior(cfg, store)
    monkeypatch.setattr("vqvideo.data.code_cache.encode_episode", lambda *_: pytest.fail("encoded"))
    with read_only(store.path):
        train_prior(replace(cfg, prior=replace(cfg.prior, validation_clips=5)), store, resume=True)
    assert not (cfg.folder / "prior" / "codes").exists()


def test_where_neither_store_nor_run_can_be_written_nothing_begins(tmp_path: Path, cfg: Experiment) -> None:
    store = tiny_store(tmp_path / "data")
    train_vqvae(cfg, store)
    with read_only(tmp_path), pytest.raises(InputError, match=r"tiny/prior: cannot be written .*Read-only file system"):
        train_prior(cfg, store)
