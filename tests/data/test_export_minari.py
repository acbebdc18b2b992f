"""Minari reads what was exported, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import exports
import numpy as np
import pytest

from vqvideo.data.export import export_store
from vqvideo.data.export_config import ExportConfig
from vqvideo.data.store import Store

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")


def exported(store: Store, folder: Path) -> Any:
    return minari.MinariDataset(export_store(ExportConfig(store.path, "minari", folder)) / "data")


@pytest.mark.parametrize("space", exports.SPACES)
def test_the_official_reader_gives_equal_arrays(space: str, tmp_path: Path) -> None:
    store = exports.make(tmp_path / "s", space)
    dataset = exported(store, tmp_path / "out")
    assert (dataset.total_episodes, dataset.total_steps) == (4, sum(exports.LENGTHS))
    assert dataset.action_space == exports.SPACES[space]
    for entry, read in zip(store.entries, dataset, strict=True):
        true = store.episode(entry)
        assert np.array_equal(read.observations, true.frames)
        assert (read.rewards.dtype, read.rewards.tolist()) == (np.float32, true.rewards.tolist())
        assert read.terminations.tolist() == true.terminated.tolist()
        assert read.truncations.tolist() == true.truncated.tolist()
        acts = [_at(read.actions, t) for t in range(entry.length)]
        assert all(act in dataset.action_space for act in acts)
        assert np.array_equal([store.meta.action_space.flatten(act) for act in acts], true.actions)


def _at(actions: Any, t: int) -> Any:
    """The action of a step, of arrays in dicts and tuples."""
    if isinstance(actions, dict):
        return {key: _at(part, t) for key, part in actions.items()}
    return tuple(_at(part, t) for part in actions) if isinstance(actions, tuple) else actions[t]


def test_it_lies_where_minari_looks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    dataset = exported(exports.make(tmp_path / "s"), tmp_path / "vqvideo" / "MyGame-v0")
    assert dataset.id == "vqvideo/MyGame-v0"
    assert dataset.observation_space.shape == (16, 24, 3)
    loaded = minari.load_dataset("vqvideo/MyGame-v0")
    assert [len(episode) for episode in loaded] == list(exports.LENGTHS)


def test_a_recorded_environment_can_be_made_again(tmp_path: Path) -> None:
    from vqvideo.pretrained import start_store

    dataset = exported(start_store("carracing"), tmp_path / "out")
    assert dataset.env_spec.id == "CarRacing-v3"
