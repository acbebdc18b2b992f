"""Datasets that Minari itself wrote become a store."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import exports
import numpy as np
import pytest
from gymnasium import spaces

from vqvideo.data.config import ImportConfig
from vqvideo.data.export import export_store
from vqvideo.data.export_config import ExportConfig
from vqvideo.data.formats import format_of, reader_of
from vqvideo.data.importing import import_data
from vqvideo.data.store import Store
from vqvideo.errors import InputError

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")


PICTURES = np.stack([np.full((32, 32, 3), 20 * place, np.uint8) for place in range(7)])
ACTIONS = np.array([0, 1, 2, 1, 0, 2])
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def dataset(folder: Path, monkeypatch: pytest.MonkeyPatch, several: bool = False, **given: Any) -> Path:
    """Eleven episodes of six steps, which act by two kinds of numbers if they see by several cameras."""
    from minari.data_collector.episode_buffer import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    image = spaces.Box(0, 255, (32, 32, 3), np.uint8)
    keys = spaces.Discrete(5)
    episodes = [
        EpisodeBuffer(
            id=number,
            observations={"front": PICTURES, "top": 255 - PICTURES} if several else PICTURES,
            actions=(np.zeros((6, 2), np.float32), ACTIONS) if several else ACTIONS,
            rewards=np.arange(1.0, 7) + number,
            terminations=np.arange(6) == 5,
            truncations=np.zeros(6, bool),
            infos={},
        )
        for number in range(11)
    ]
    minari.create_dataset_from_buffers(
        "corridor/test-v0",
        episodes,
        algorithm_name="none",
        action_space=spaces.Tuple([spaces.Box(-1, 1, (2,)), keys]) if several else keys,
        observation_space=spaces.Dict({"front": image, "top": image}) if several else image,
        **given,
    )
    return folder / "corridor" / "test-v0"


def imported(source: Path, **options: Any) -> Store:
    return Store.open(import_data(ImportConfig(source, **{"out": source.parent / "store", "frame_size": 32} | options)))


@pytest.mark.parametrize("kind", ["hdf5", "arrow"])
@pytest.mark.parametrize("jpeg", [False, True])
@pytest.mark.parametrize("several", [False, True])
def test_what_minari_wrote_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, several: bool, jpeg: bool, kind: str
) -> None:
    source = dataset(tmp_path, monkeypatch, several, jpeg_encoding=jpeg, data_format=kind)
    assert (format_of(source), format_of(source / "data")) == ("minari", "minari")
    store = imported(source, cameras=("front",) if several else ())
    assert str(store.meta.action_space).endswith("Discrete(5))" if several else "Discrete(5)")
    assert (store.meta.missing, [entry.length for entry in store.entries]) == ((), [6] * 11)
    for number in (2, 10):
        episode = store.episode(store.entries[number])
        assert episode.frames[:, 8, 8, 0].tolist() == pytest.approx([20 * n for n in range(7)], abs=3)
        assert episode.actions[:, -1].tolist() == [0, 1, 2, 1, 0, 2]
        assert episode.rewards.tolist() == [n + number for n in range(1, 7)]
        assert episode.terminated[-1]


@pytest.mark.parametrize("space", exports.SPACES)
@pytest.mark.parametrize("lacks", [(), ("rewards", "terminated")])
def test_an_export_comes_back_equal(tmp_path: Path, space: str, lacks: tuple[str, ...]) -> None:
    store = exports.make(tmp_path / "s", space, without=lacks)
    out = export_store(ExportConfig(store.path, "minari", tmp_path / "out"))
    back = imported(out, frame_size="16x24", held_out_every=3)
    assert (back.meta.fps, set(back.meta.missing)) == (store.meta.fps, set(store.meta.missing))
    assert back.meta.action_space == store.meta.action_space
    for entry, again in zip(store.entries, back.entries, strict=True):
        one, other = store.episode(entry), back.episode(again)
        for name in ("frames", "actions", "rewards", "terminated", "truncated"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert entry.split == again.split


@pytest.mark.parametrize("said", [{"render_fps": 12}, {"env_spec": '{"kwargs": {"render_fps": 12}}'}])
def test_the_rate_of_the_environment_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any]
) -> None:
    source = dataset(tmp_path, monkeypatch)
    path = source / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    assert imported(source).meta.fps == 12


@pytest.mark.parametrize("what", ["packed", "cut off", "lies", "junk"])
def test_arrow_that_cannot_be_trusted_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    source = dataset(tmp_path, monkeypatch, data_format="arrow", jpeg_encoding=False)
    path = source / "data" / "3" / "part-0.arrow"
    content = path.read_bytes()
    batch = pyarrow.ipc.open_file(content).get_batch(0)
    options = pyarrow.ipc.IpcWriteOptions(compression="zstd" if what == "packed" else None)
    if what == "lies":
        # Of an image that lies far behind the file.
        far = pyarrow.py_buffer(np.array([0, 2**28, 0, 0, 0, 0, 0, 5], np.int32).tobytes())
        image = pyarrow.Array.from_buffers(pyarrow.binary(), 7, [None, far, pyarrow.py_buffer(b"short")])
        batch = pyarrow.RecordBatch.from_arrays([image], names=["observations"])
    with pyarrow.ipc.new_file(str(path), batch.schema, options=options) as file:
        file.write(batch)
    if what in ("cut off", "junk"):
        path.write_bytes(content[:2000] if what == "cut off" else b"junk")
    said = {"packed": "a compressed or record batch part, expected plain", "junk": "not a file of Arrow"}
    with pytest.raises(InputError, match=rf"1 of 11 .*\n.*part-0\.arrow: {said.get(what, 'no data of Arrow')}"):
        imported(source)


@pytest.mark.parametrize("kind", ["hdf5", "arrow"])
def test_other_processes_get_no_frames_but_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    recording = reader_of(ImportConfig(dataset(tmp_path, monkeypatch, data_format=kind, jpeg_encoding=False)))[1].open(
        "episode_3" if kind == "arrow" else "data/main_data.hdf5/episode_3"
    )
    sent = pickle.dumps(recording)
    assert len(sent) < PICTURES.nbytes / 2
    again = [moment.frame for moment in pickle.loads(sent).moments(2)]
    assert np.array_equal(again, PICTURES[2:])


def test_what_minari_keeps_in_parquet_is_said_to_be_of_no_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dataset(tmp_path, monkeypatch, data_format="parquet")
    with pytest.raises(InputError, match=r"no \.arrow files in it, expected what Minari writes with data_format"):
        imported(source)


def test_metadata_that_lie_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dataset(tmp_path, monkeypatch)
    (source / "data" / "metadata.json").write_text('{"action_space": "{\\"type\\": \\"Odd\\"}"}')
    with pytest.raises(InputError, match=r"metadata\.json: no action_space that can be used .*--columns actions"):
        imported(source)
    assert not (source.parent / "store").exists()
    assert str(imported(source, columns={"actions": "actions"}).meta.action_space) == "Discrete(3)"
