"""Datasets that Minari itself wrote become a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from vqvideo.data.config import ImportConfig
from vqvideo.data.formats import format_of
from vqvideo.data.importing import import_data
from vqvideo.data.store import Store
from vqvideo.errors import InputError

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")


PICTURES = np.stack([np.full((16, 16, 3), 20 * place, np.uint8) for place in range(7)])
ACTIONS = np.array([0, 1, 2, 1, 0, 2])


def dataset(folder: Path, monkeypatch: pytest.MonkeyPatch, several: bool = False, **given: Any) -> Path:
    """Two episodes of six steps."""
    from minari.data_collector.episode_buffer import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    image = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    episodes = [
        EpisodeBuffer(
            id=number,
            observations={"front": PICTURES, "top": 255 - PICTURES} if several else PICTURES,
            actions=ACTIONS,
            rewards=np.arange(1.0, 7),
            terminations=np.arange(6) == 5,
            truncations=np.zeros(6, bool),
            infos={},
        )
        for number in range(2)
    ]
    minari.create_dataset_from_buffers(
        "corridor/test-v0",
        episodes,
        algorithm_name="none",
        action_space=spaces.Discrete(5),
        observation_space=spaces.Dict({"front": image, "top": image}) if several else image,
        **given,
    )
    return folder / "corridor" / "test-v0"


def imported(source: Path, **options: Any) -> Store:
    return Store.open(import_data(ImportConfig(source, **{"out": source.parent / "store", "frame_size": 16} | options)))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("jpeg", [False, True])
@pytest.mark.parametrize("several", [False, True])
def test_what_minari_wrote_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, several: bool, jpeg: bool) -> None:
    source = dataset(tmp_path, monkeypatch, several, jpeg_encoding=jpeg)
    assert format_of(source) == "minari"
    store = imported(source, cameras=("front",) if several else ())
    assert (str(store.meta.action_space), store.meta.missing) == ("Discrete(5)", ())
    assert [entry.length for entry in store.entries] == [6, 6]
    episode = store.episode(store.entries[0])
    assert episode.frames[:, 8, 8, 0].tolist() == pytest.approx([20 * n for n in range(7)], abs=3)
    assert episode.actions[:, 0].tolist() == [0, 1, 2, 1, 0, 2]
    assert episode.rewards.tolist() == [1, 2, 3, 4, 5, 6]
    assert episode.terminated[-1]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_metadata_that_lie_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dataset(tmp_path, monkeypatch)
    (source / "data" / "metadata.json").write_text('{"action_space": "{\\"type\\": \\"Odd\\"}"}')
    with pytest.raises(InputError, match=r"metadata\.json: no action_space that can be used .*--columns actions"):
        imported(source)
    assert not (source.parent / "store").exists()
    assert str(imported(source, columns={"actions": "actions"}).meta.action_space) == "Discrete(3)"
