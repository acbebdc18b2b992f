"""LeRobot datasets become a store: real rows, films that several episodes share, images, and our own export."""

from __future__ import annotations

import json
import os
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import exports
import numpy as np
import pytest
from PIL import Image
from videos import write_video

from vqvideo.data.config import ImportConfig
from vqvideo.data.export import export_store
from vqvideo.data.export_config import ExportConfig
from vqvideo.data.exporting import lerobot_files
from vqvideo.data.formats import format_of
from vqvideo.data.importing import import_data
from vqvideo.data.store import Store
from vqvideo.errors import InputError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
SAMPLES = Path(os.environ.get("VQVIDEO_SAMPLES", Path(__file__).parents[3] / "shared" / "data"))
"""Recordings of others, which are not shipped."""
CAMERA = "observation.images.front"
SIZE = (16, 24)
LENGTHS = (5, 9, 4)


def imported(source: Path, **options: Any) -> Store:
    given = {"out": source.parent / f"{source.name}_store", "frame_size": f"{SIZE[0]}x{SIZE[1]}"} | options
    return Store.open(import_data(ImportConfig(source, **given)))


def films_of(count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(t, h, w, 3) uint8: brightness tells which frame it is."""
    return np.broadcast_to((40 + np.arange(count) * 5 % 200).astype(np.uint8)[:, None, None, None], (count, *size, 3))


def shown(store: Store, index: int) -> list[int]:
    """Brightness of each frame of an episode."""
    return store.episode(store.entries[index]).frames[:, 8, 8, 0].tolist()


# ---------------------------------------------------------------- datasets


def features(kind: str) -> dict[str, Any]:
    one = {"dtype": "float32", "shape": [2], "names": ["pan", "lift"]}
    return {
        CAMERA: {"dtype": kind, "shape": [*SIZE, 3], "names": ["height", "width", "channels"]},
        "action": one,
        "observation.state": one,
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
        **{name: {"dtype": "int64", "shape": [1], "names": None} for name in ("episode_index", "frame_index")},
    }


def table(episode: int, length: int, pictures: bool = False) -> Any:
    frame = np.arange(length)
    actions = np.stack([frame, 10.0 * episode - frame], axis=1).astype(np.float32)
    columns = {
        "action": pyarrow.FixedSizeListArray.from_arrays(actions.ravel(), 2),
        "observation.state": pyarrow.array(actions.tolist()),
        "next.reward": pyarrow.array(frame.astype(np.float32)),
        "episode_index": pyarrow.array(np.full(length, episode)),
        "frame_index": pyarrow.array(frame),
    }
    if pictures:
        start = sum(LENGTHS[:episode])
        columns[CAMERA] = pyarrow.array([{"bytes": png(start + n), "path": f"frame_{n}.png"} for n in frame])
    return pyarrow.table(columns)


def png(number: int) -> bytes:
    file = BytesIO()
    Image.fromarray(films_of(number + 1)[number]).save(file, "PNG")
    return file.getvalue()


def write_info(folder: Path, version: str, kind: str, **said: Any) -> None:
    (folder / "meta").mkdir(parents=True, exist_ok=True)
    info = {"codebase_version": version, "fps": 10, "chunks_size": 2, "features": features(kind)} | said
    (folder / "meta" / "info.json").write_text(json.dumps(info))


def v2(folder: Path, kind: str = "video", **said: Any) -> Path:
    """A file of rows, and a film, for each episode."""
    data = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    films = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    write_info(folder, "v2.1", kind, **{"data_path": data, "video_path": films} | said)
    lines = [json.dumps({"episode_index": n, "tasks": ["pick"], "length": T}) for n, T in enumerate(LENGTHS)]
    (folder / "meta" / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    frames = films_of(sum(LENGTHS))
    for number, length in enumerate(LENGTHS):
        values = {"episode_chunk": number // 2, "episode_index": number, "video_key": CAMERA}
        rows = folder / data.format(**values)
        rows.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table(number, length, kind == "image"), rows)
        start = sum(LENGTHS[:number])
        if kind == "video":
            write_video(folder / films.format(**values), frames[start : start + length], 10, "libx264", "yuv444p")
    return folder


def v3(folder: Path, extra: int = 0, **said: Any) -> Path:
    """One file of rows and one film for all episodes; `extra` frames are in the film before each episode."""
    data = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    films = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    write_info(folder, "v3.0", "video", **{"data_path": data, "video_path": films} | said)
    frames, records, placed = films_of(sum(LENGTHS)), [], []
    for number, length in enumerate(LENGTHS):
        start = sum(LENGTHS[:number])
        placed += [np.zeros((extra, *SIZE, 3), np.uint8), frames[start : start + length]]
        times = {"from_timestamp": (start + extra * (number + 1)) / 10, "to_timestamp": 0.0}
        numbers = {"chunk_index": 0, "file_index": 0}
        record = {"episode_index": number, "length": length} | {f"data/{key}": value for key, value in numbers.items()}
        records.append(record | {f"videos/{CAMERA}/{key}": value for key, value in (numbers | times).items()})
    values = {"chunk_index": 0, "file_index": 0, "video_key": CAMERA}
    paths = [folder / data.format(**values), folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet"]
    for path, rows in zip(
        paths,
        [pyarrow.concat_tables([table(n, T) for n, T in enumerate(LENGTHS)]), pyarrow.Table.from_pylist(records)],
        strict=True,
    ):
        path.parent.mkdir(parents=True)
        parquet.write_table(rows, path)
    write_video(folder / films.format(**values), np.concatenate(placed), 10, "libx264", "yuv444p")
    return folder


def check(store: Store) -> None:
    """That a store holds what the datasets above show and tell."""
    assert [entry.length for entry in store.entries] == [length - 1 for length in LENGTHS]
    assert store.meta.fps == 10
    for number, length in enumerate(LENGTHS):
        episode = store.episode(store.entries[number])
        start = sum(LENGTHS[:number])
        assert shown(store, number) == pytest.approx(films_of(start + length)[start:, 0, 0, 0], abs=2)
        assert episode.actions[:, 0].tolist() == list(range(length - 1))
        assert episode.actions[:, 1].tolist() == [10 * number - n for n in range(length - 1)]
        assert episode.rewards.tolist() == list(range(length - 1))
    assert store.meta.missing == ("ends",)


# ---------------------------------------------------------------- what is read


def test_version_2_keeps_an_episode_in_a_file(tmp_path: Path) -> None:
    source = v2(tmp_path / "arm")
    assert format_of(source) == "lerobot"
    check(imported(source))


def test_version_2_with_images_among_the_rows(tmp_path: Path) -> None:
    check(imported(v2(tmp_path / "arm", "image")))


def test_version_3_keeps_many_episodes_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(imported(v3(tmp_path / "arm")))
    said = capsys.readouterr().out
    assert "action t is taken to lead from frame t to frame t+1" in said
    assert "the last action leads to no frame: dropped" in said


def test_a_film_with_more_frames_than_rows_is_read_where_the_metadata_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(imported(v3(tmp_path / "arm", extra=3)))
    assert "has 27 frames and its episodes 18 rows: each begins where the metadata say" in capsys.readouterr().out


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("small_files", [False, True])
@pytest.mark.parametrize("space", ["stick", "keys", "nothing"])
def test_what_was_exported_comes_back(
    space: str, lossless: bool, small_files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small_files:
        monkeypatch.setattr(lerobot_files, "DATA_MB", 0)
        monkeypatch.setattr(lerobot_files, "VIDEO_MB", 0)
    store = exports.make(tmp_path / "s", space, SIZE, fps=12.5)
    folder = export_store(ExportConfig(store.path, "lerobot", tmp_path / "out", lossless))
    back = imported(folder, held_out_every=3)
    assert (back.meta.fps, back.meta.missing) == (12.5, ())
    assert str(back.meta.action_space) == str(store.meta.action_space)
    for mine, theirs in zip(store.entries, back.entries, strict=True):
        true, got = store.episode(mine), back.episode(theirs)
        assert np.array_equal(got.actions, true.actions.astype(np.float32))
        assert np.array_equal(got.rewards, true.rewards)
        assert np.array_equal(got.terminated, true.terminated)
        assert np.array_equal(got.truncated, true.truncated)
        assert exports.psnr(got.frames, true.frames) > (130 if lossless else 40)


def test_rows_of_a_real_recording(tmp_path: Path) -> None:
    sample = SAMPLES / "lerobot_v3"
    if not sample.is_dir():
        pytest.skip(f"no recording in {sample}: VQVIDEO_SAMPLES names its parent")
    folder = tmp_path / "so101"
    shutil.copytree(sample, folder)
    os.chmod(folder, 0o755)
    frames = films_of(1492, (48, 64))
    film = tmp_path / "film.mp4"
    write_video(film, frames, 30, "libx264", "yuv420p")
    (folder / "videos" / CAMERA / "chunk-000").mkdir(parents=True)
    shutil.move(film, folder / "videos" / CAMERA / "chunk-000" / "file-000.mp4")
    store = imported(folder, cameras=("front",), steps=400)
    assert [entry.length for entry in store.entries] == [372, 373, 371, 372]
    assert (store.meta.fps, store.meta.missing) == (30, ("ends", "rewards"))
    rows = parquet.read_table(folder / "data" / "chunk-000" / "file-000.parquet")
    actions, of = np.array(rows["action"].to_pylist(), np.float32), np.array(rows["episode_index"])
    for number in range(4):
        assert np.array_equal(store.episode(store.entries[number]).actions, actions[of == number][:-1])
        begin = int(np.flatnonzero(of == number)[0])
        expected = frames[begin : begin + store.entries[number].length + 1, 0, 0, 0].astype(int)
        assert np.abs(np.array(shown(store, number)) - expected).max() <= 4


# ---------------------------------------------------------------- what is refused


def test_a_film_that_lacks_frames_is_told_with_its_episode(tmp_path: Path) -> None:
    source = v2(tmp_path / "arm")
    film = source / f"videos/chunk-000/{CAMERA}/episode_000001.mp4"
    write_video(film, films_of(6), 10, "libx264", "yuv444p")
    with pytest.raises(InputError, match=r"arm: episode 1: 6 frames and 9 rows.*--align shortest"):
        imported(source)
    store = imported(source, align="shortest")
    assert [entry.length for entry in store.entries] == [4, 5, 3]


def test_a_film_that_is_not_there_is_told(tmp_path: Path) -> None:
    source = v2(tmp_path / "arm")
    (source / f"videos/chunk-000/{CAMERA}/episode_000001.mp4").unlink()
    with pytest.raises(InputError, match=r"episode_000001\.mp4: not a video that can be read \(No such file"):
        imported(source)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"data_path": "../../secret/{episode_index}"}, r"info\.json: data_path is .*expected a file in this folder"),
        ({"video_path": "/etc/{episode_index}"}, r"info\.json: video_path is '/etc/.*expected a file in this folder"),
        ({"data_path": "data/{episode_index.__class__}"}, "no such file|not a Parquet file|No such file"),
        ({"data_path": "data/{other:03d}"}, r"data_path has \{other\}, known: episode_chunk, episode_index"),
        ({"data_path": None}, "data_path is None"),
        ({"codebase_version": "v1.6"}, r"codebase_version 'v1\.6', expected v2\.0, v2\.1 or v3\.0"),
        ({"chunks_size": -1}, "chunks_size is -1, expected a whole number"),
        ({"features": []}, "no meta/info.json with features"),
    ],
)
def test_metadata_that_lie_are_refused(said: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        imported(v2(tmp_path / "arm", **said))


def test_a_length_that_does_not_fit_the_rows_is_told(tmp_path: Path) -> None:
    source = v3(tmp_path / "arm")
    records = source / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    rows = parquet.read_table(records).to_pylist()
    rows[1]["length"] = 8
    parquet.write_table(pyarrow.Table.from_pylist(rows), records)
    with pytest.raises(InputError, match=r"episode 1: 9 rows of it in .*file-000\.parquet, expected 8"):
        imported(source)


def test_rows_of_several_lengths_are_told(tmp_path: Path) -> None:
    source = v2(tmp_path / "arm")
    path = source / "data" / "chunk-000" / "episode_000000.parquet"
    rows = parquet.read_table(path)
    ragged = pyarrow.array([[1.0], [1.0, 2.0, 3.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    parquet.write_table(rows.set_column(rows.column_names.index("action"), "action", ragged), path)
    with pytest.raises(InputError, match=r"episode_000000\.parquet: rows of action have \[1, 3, 2\] numbers"):
        imported(source)


def test_the_camera_has_to_be_named_where_there_are_two(tmp_path: Path) -> None:
    source = v2(tmp_path / "arm", features=features("video") | {"observation.images.top": features("video")[CAMERA]})
    with pytest.raises(InputError, match=r"2 cameras .*--cameras observation\.images\.front"):
        imported(source)
    check(imported(source, cameras=("front",)))
