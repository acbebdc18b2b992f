"""LeRobot datasets: laid out as a real recording is, and nothing lost but what the codec loses."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import exports
import numpy as np
import pytest
from PIL import Image
from videos import read_video

from vqvideo.data.export import export_store
from vqvideo.data.export_config import ExportConfig
from vqvideo.data.exporting import lerobot_files
from vqvideo.data.exporting.lerobot_features import FRAMES
from vqvideo.data.exporting.lerobot_stats import FrameStats, of_rows, together
from vqvideo.data.store import Store

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
SAMPLES = Path(os.environ.get("VQVIDEO_SAMPLES", Path(__file__).parents[3] / "shared" / "data"))
"""Recordings of others, which are not shipped."""
ROWS, RECORDS = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"


def exported(store: Store, folder: Path, lossless: bool = False) -> Path:
    return export_store(ExportConfig(store.path, "lerobot", folder, lossless))


def info_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "meta" / "info.json").read_text())


def rows_of(folder: Path) -> dict[str, Any]:
    """All rows of all files, in order, by column."""
    table = pyarrow.concat_tables([parquet.read_table(path) for path in sorted(folder.glob("data/*/*.parquet"))])
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


def frames_of(folder: Path, record: dict[str, Any], rows: dict[str, Any]) -> np.ndarray:
    """The frames of an episode, found as the layout says."""
    begin, end = record["dataset_from_index"], record["dataset_to_index"]
    if FRAMES in rows:
        pictures = [Image.open(io.BytesIO(one["bytes"])) for one in rows[FRAMES][begin:end]]
        return np.stack([np.asarray(picture) for picture in pictures])
    info, key = info_of(folder), f"videos/{FRAMES}/"
    numbers = {name: record[key + name] for name in ("chunk_index", "file_index")}
    film = read_video(folder / info["video_path"].format(video_key=FRAMES, **numbers))
    first, after = (round(record[key + name] * info["fps"]) for name in ("from_timestamp", "to_timestamp"))
    return film[first:after]


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("small_files", [False, True])
def test_without_the_last_action_of_each_episode_it_is_the_store(
    lossless: bool, small_files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small_files:
        monkeypatch.setattr(lerobot_files, "DATA_MB", 0)
        monkeypatch.setattr(lerobot_files, "VIDEO_MB", 0)
        monkeypatch.setattr(lerobot_files, "CHUNK_FILES", 3)
    store = exports.make(tmp_path / "s", size=(48, 64))
    folder = exported(store, tmp_path / "out", lossless)
    rows, records = rows_of(folder), parquet.read_table(folder / RECORDS).to_pylist()
    assert len(list(folder.glob("data/*/*.parquet"))) == (4 if small_files else 1)
    assert rows["index"].tolist() == list(range(info_of(folder)["total_frames"]))
    for entry, record in zip(store.entries, records, strict=True):
        true, T = store.episode(entry), entry.length
        own = {name: values[record["dataset_from_index"] : record["dataset_to_index"]] for name, values in rows.items()}
        assert own["is_last"].tolist() == [False] * T + [True]
        assert np.array_equal(own["action"][:-1], true.actions.astype(np.float32))
        assert np.array_equal(own["action"][-1], own["action"][-2])
        assert own["next.reward"].tolist() == [*true.rewards.tolist(), 0]
        assert own["next.done"][:-1].tolist() == true.terminated.tolist()
        assert own["next.truncated"][:-1].tolist() == true.truncated.tolist()
        assert np.allclose(own["timestamp"], np.arange(T + 1) / 10)
        assert own["frame_index"].tolist() == list(range(T + 1))
        assert set(own["episode_index"]) == {entry.index}
        frames = frames_of(folder, record, rows)
        assert exports.psnr(frames, true.frames) > (130 if lossless else 40)


def test_one_action_is_a_number_and_no_action_no_column(tmp_path: Path) -> None:
    rows = rows_of(exported(exports.make(tmp_path / "s", "keys", size=(8, 8)), tmp_path / "out"))
    assert rows["action"].shape == (sum(exports.LENGTHS) + 4,)
    assert "action" not in rows_of(exported(exports.make(tmp_path / "t", "nothing", size=(8, 8)), tmp_path / "out2"))


def test_rounded_actions_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from vqvideo.data import write_store

    one = {"frames": exports.natural(3, (8, 8)), "actions": np.array([[0.1], [0.2]])}
    exported(write_store(tmp_path / "s", [one], fps=5), tmp_path / "out")
    assert "actions are float32 in LeRobot's datasets: rounded by up to 3e-09" in caplog.text


# ---------------------------------------------------------------- beside a real recording


@pytest.fixture(scope="module")
def sample() -> Path:
    folder = SAMPLES / "lerobot_v3"
    if not folder.is_dir():
        pytest.skip(f"no recording in {folder}: VQVIDEO_SAMPLES names its parent")
    return folder


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lerobot")
    return exported(exports.make(folder / "s"), folder / "out")


def types(path: Path, rename: str = "") -> dict[str, Any]:
    """Types by column; the camera `rename` is called as ours is."""
    schema = parquet.read_schema(path)
    kinds = {field.name.replace(rename or "?", FRAMES): field.type for field in schema}
    return {name: kind.value_type if name in ("action", "observation.state") else kind for name, kind in kinds.items()}


def test_files_and_types_are_those_of_a_real_recording(sample: Path, films: Path) -> None:
    front = "observation.images.front"
    for name in (ROWS, RECORDS, "meta/tasks.parquet"):
        theirs, ours = types(sample / name, front), types(films / name)
        others = {key for key in theirs if "observation.state" in key or "observation.images.top" in key}
        extra = {key for key in ours if "next." in key or "is_last" in key}
        assert {key: kind for key, kind in theirs.items() if key not in others} == {
            key: kind for key, kind in ours.items() if key not in extra
        }
        both = [key for key in theirs if key in ours and not key.startswith("stats/")]
        assert [key for key in ours if key in both] == both
    theirs, ours = info_of(sample), info_of(films)
    assert theirs.keys() == ours.keys()
    assert theirs["features"][front].keys() == ours["features"][FRAMES].keys()
    assert theirs["features"][front]["info"].keys() == ours["features"][FRAMES]["info"].keys()
    for name in ("action", "timestamp", "index"):
        assert theirs["features"][name].keys() == ours["features"][name].keys()
    assert (theirs["data_path"], theirs["video_path"]) == (ours["data_path"], ours["video_path"])


def test_stats_have_the_form_of_a_real_recording(sample: Path, films: Path) -> None:
    theirs, ours = (json.loads((folder / "meta" / "stats.json").read_text()) for folder in (sample, films))
    for mine, real in ((FRAMES, "observation.images.top"), ("action", "action"), ("timestamp", "timestamp")):
        assert {name: np.ndim(value) for name, value in ours[mine].items()} == {
            name: np.ndim(value) for name, value in theirs[real].items()
        }


def test_stats_of_a_real_recording_come_out_again(sample: Path) -> None:
    rows = parquet.read_table(sample / ROWS)
    theirs = json.loads((sample / "meta" / "stats.json").read_text())["action"]
    values, episodes = np.array(rows["action"].to_pylist(), np.float32), np.array(rows["episode_index"])
    ours = together([of_rows(values[episodes == number]) for number in range(4)])
    for name in ("min", "max", "mean", "std"):
        assert np.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-4), name
    for name in ("q10", "q50", "q90"):  # theirs are read from histograms
        assert np.allclose(ours[name], theirs[name], atol=0.2), name


# ---------------------------------------------------------------- stats


def test_stats_of_frames_are_those_of_their_pixels() -> None:
    frames = exports.natural(6, (8, 8))
    seen = FrameStats()
    seen.add(frames[:4])
    seen.add(frames[4:])
    pixels, stats = frames.reshape(-1, 3) / 255, seen.stats()
    direct = of_rows(pixels)
    for name in ("min", "max", "mean", "std"):
        assert stats[name].shape == (3, 1, 1)
        assert np.allclose(stats[name].ravel(), direct[name]), name
    for name, share in (("q10", 0.1), ("q50", 0.5), ("q99", 0.99)):
        expected = np.quantile(pixels, share, axis=0, method="inverted_cdf")
        assert np.allclose(stats[name].ravel(), expected), name
    assert stats["count"].tolist() == [6]


def test_stats_of_parts_are_those_of_the_whole() -> None:
    values = np.random.default_rng(0).normal(size=(30, 2))
    parts, whole = together([of_rows(values[:10]), of_rows(values[10:])]), of_rows(values)
    for name in ("min", "max", "mean", "std", "count"):
        assert np.allclose(parts[name], whole[name]), name
