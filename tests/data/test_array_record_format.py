"""Records of jasmine become a store, without unpickling; TFDS in ArrayRecord is read as in TFRecord."""

from __future__ import annotations

import json
import os
import pickle
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tfrecords import example, png

from vqvideo.data.config import ImportConfig
from vqvideo.data.formats import array_records, format_of, reader_of
from vqvideo.data.formats.array_records import ArrayRecords
from vqvideo.data.importing import import_data
from vqvideo.data.store import Store
from vqvideo.errors import InputError, MissingExtraError

module = pytest.importorskip("array_record.python.array_record_module")
T = 8


def moving(h: int, w: int) -> np.ndarray:
    """A bright block that goes right over a slope."""
    frames = np.zeros((T, h, w, 3), np.uint8)
    frames[..., 1] = np.arange(w) * 255 // w
    for t in range(T):
        frames[t, h // 4 : h // 2, t : t + 4] = 255
    return frames


def record(frames: np.ndarray, **other: Any) -> dict[str, Any]:
    """As jasmine writes it: an action for each frame."""
    return {"raw_video": frames.tobytes(), "sequence_length": len(frames), "actions": np.arange(T) % 3} | other


def write(path: Path, records: Iterable[Any], options: str = "group_size:1") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = module.ArrayRecordWriter(str(path), options)
    for one in records:
        writer.write(one if isinstance(one, bytes) else pickle.dumps(one))
    writer.close()
    return path


def imported(source: Path, **options: Any) -> Store:
    given = {"out": source.parent / "store", "frame_size": 16, "steps": 200} | options
    return Store.open(import_data(ImportConfig(source, **given)))


# ---------------------------------------------------------------- videos of bytes


def test_files_of_jasmine_become_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "coinrun"
    for number in range(2):
        records = [record(moving(16, 16), rewards=np.arange(T) + number * 10.0) for _ in range(2)]
        write(source / "train" / f"data_{number:04}.array_record", records)
    (source / "metadata.json").write_text('{"env": "coinrun", "num_actions": 15, "avg_episode_len_val": NaN}')
    assert format_of(source) == format_of(source / "train" / "data_0000.array_record") == "array-record"
    store = imported(source)
    assert (str(store.meta.action_space), store.meta.missing) == ("Discrete(3)", ("ends",))
    assert [entry.length for entry in store.entries] == [T - 1] * 4
    episode = store.episode(store.entries[2])
    assert np.array_equal(episode.frames, moving(16, 16))
    assert episode.actions[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert episode.rewards.tolist() == [10, 11, 12, 13, 14, 15, 16]
    said = capsys.readouterr().out
    assert "nothing says how large frames are: 16 x 16 is assumed (--source-size HxW)" in said
    assert "from frame t to frame t+1" in said


def test_other_processes_read_for_themselves(tmp_path: Path) -> None:
    path = write(tmp_path / "a.array_record", [record(moving(16, 16))])
    _, reader = reader_of(ImportConfig(path))
    found = [reader.open(name) for name in reader.names]
    (copy,) = pickle.loads(pickle.dumps(found))
    assert np.array_equal([moment.frame for moment in copy.moments(first=5)], moving(16, 16)[5:])


def test_actions_may_be_a_list_or_absent(tmp_path: Path) -> None:
    listed = imported(write(tmp_path / "a.array_record", [record(moving(16, 16), actions=[0, 1, 2, 0, 1, 2, 0, 1])]))
    assert listed.episode(listed.entries[0]).actions[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    steps = [np.array([t, -t], np.float32) for t in range(T)]
    stacked = imported(
        write(tmp_path / "b.array_record", [record(moving(16, 16), actions=steps)]), out=tmp_path / "stacked"
    )
    assert stacked.episode(stacked.entries[0]).actions[3].tolist() == [3, -3]
    film = {"raw_video": moving(16, 16).tobytes(), "sequence_length": T, "video_file_name": "x.mp4"}
    none = imported(write(tmp_path / "c.array_record", [film]), out=tmp_path / "none")
    assert (none.meta.action_space.size, none.entries[0].length) == (0, T - 1)


# ---------------------------------------------------------------- the shape of frames


def test_frames_that_are_no_squares_are_told_by_their_looks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.array_record", [record(moving(90, 160))])
    with pytest.raises(InputError, match=r"record 0: nothing says how large.*14400 pixels.*--source-size 90x160"):
        imported(path)
    store = imported(path, source_size="90x160", frame_size="90x160")
    assert np.array_equal(store.episode(store.entries[0]).frames, moving(90, 160))
    with pytest.raises(InputError, match=r"345600 bytes, expected 8 frames of 64 x 64 x 3: --source-size"):
        imported(path, source_size=64, out=tmp_path / "other")


@pytest.mark.parametrize("place", [".", ".."])
def test_metadata_beside_or_above_say_the_shape(tmp_path: Path, place: str) -> None:
    path = write(tmp_path / "in" / "train" / "a.array_record", [record(moving(90, 160))])
    (path.parent / place / "metadata.json").write_text(json.dumps({"height": 90, "width": 160}))
    assert imported(path.parent, out=tmp_path / "store").entries
    (path.parent / place / "metadata.json").write_text("{")
    with pytest.raises(InputError, match=r"metadata\.json: cannot be read"):
        imported(path.parent, out=tmp_path / "other")


def test_shapes_that_fit_nothing_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.array_record", [record(moving(16, 16), sequence_length=7)])
    with pytest.raises(InputError, match="record 0: 6144 bytes of raw_video and the sequence_length 7, expected"):
        imported(path)
    path = write(tmp_path / "b.array_record", [record(moving(16, 17))])
    with pytest.raises(InputError, match="of 272 pixels they look like 16 x 17: --source-size 16x17"):
        imported(path)
    with pytest.raises(InputError, match="--source-size is '16y17', expected a side in pixels"):
        imported(path, source_size="16y17")


# ---------------------------------------------------------------- hostile and broken files


class Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_records_that_would_run_something_are_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.array_record", [record(moving(16, 16)), record(moving(16, 16), env=Runs(tmp_path / "x"))]
    )
    with pytest.raises(InputError, match=r"1 of 2.*\n.*a\.array_record: record 1: a pickle that calls '\w+\.mkdir'"):
        imported(path)
    assert len(imported(path, skip_broken=True).entries) == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"junk", "no pickle of plain values"),
        ([1, 2], "found list, expected a dict with raw_video"),
        ({"video": b"x"}, r"found \['video'\], expected a dict with raw_video"),
        ({"raw_video": b"xxx" * 4, "sequence_length": "4"}, "the sequence_length None"),
    ],
)
def test_records_of_something_else_are_told(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"record 0: .*{said}"):
        imported(write(tmp_path / "a.array_record", [content]))


def test_files_that_are_cut_off_are_told_and_may_be_skipped(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.array_record", [record(moving(16, 16))])
    path = write(tmp_path / "in" / "b.array_record", [record(moving(16, 16))])
    os.truncate(path, path.stat().st_size - 1000)
    with pytest.raises(InputError, match=r"1 of 2.*\n.*b\.array_record: no ArrayRecord file .*cut off"):
        imported(path.parent, out=tmp_path / "store")
    assert len(imported(path.parent, out=tmp_path / "store", skip_broken=True).entries) == 1
    path.write_bytes(b"junk" * 1000)
    with pytest.raises(InputError, match=r"b\.array_record: no ArrayRecord file .*its beginning is another one"):
        imported(path, out=tmp_path / "other")
    with pytest.raises(InputError, match=r"b\.array_record: no records in it"):
        imported(write(path, []), out=tmp_path / "other")
    path.unlink()
    with pytest.raises(InputError, match="no such file or folder"):
        imported(path, format="array-record", out=tmp_path / "other")


def test_damaged_records_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.array_record", [os.urandom(5000), os.urandom(5000)])
    content = bytearray(path.read_bytes())
    content[7000] ^= 1
    path.write_bytes(content)
    records = ArrayRecords(path)
    assert len(records.read(0)) == 5000
    with pytest.raises(InputError, match=r"a\.array_record: record 1 cannot be read .*damaged"):
        records.read(1)


def test_what_would_become_too_large_is_refused_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.array_record", [bytes(2**20)])
    assert len(ArrayRecords(path)) == 1
    assert path.stat().st_size < 2**20
    monkeypatch.setattr(array_records, "MAX_RECORD", 2**20 - 1)
    records = ArrayRecords(path)
    assert len(records) == 0
    assert "at byte 64 are 1048576 bytes of records" in str(records.broken)


OPTIONS = ("group_size:1", "group_size:7", "group_size:1,transpose:true", "group_size:3,uncompressed",
           "group_size:1,pad_to_block_boundary:true")  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
def test_chunks_are_found_wherever_the_official_writer_puts_them(tmp_path: Path, options: str) -> None:
    draw = random.Random(0)
    for count in (0, 1, 2, 60):
        sizes = [draw.choice([0, 1, 40, draw.randrange(5000), draw.randrange(90000)]) for _ in range(count)]
        written = [draw.randbytes(size) for size in sizes]
        records = ArrayRecords(write(tmp_path / "a.array_record", written, options))
        assert (records.broken, len(records)) == (None, count)
        assert [records.read(number) for number in range(count)] == written


def test_the_command_that_installs_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.array_record", [record(moving(16, 16))])
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_module", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vqvideo\[formats\]'"):
        imported(path)


# ---------------------------------------------------------------- episodes of RLDS


def test_rlds_may_be_stored_in_array_record(tmp_path: Path) -> None:
    at = np.arange(T)
    given = {
        "observation/image": [png(frame) for frame in moving(16, 16)],
        **{"action": at / 10, "reward": at * 1.0},
        **{"is_first": at == 0, "is_last": at == T - 1, "is_terminal": at == T - 1},
    }
    episode = example({f"steps/{name}": value for name, value in given.items()})
    path = write(tmp_path / "in" / "x-train.array_record-00000-of-00001", [episode])
    assert format_of(path) == "array-record"
    (path.parent / "features.json").write_text('{"featuresDict": {"features": {"steps": {}}}}')
    assert format_of(path) == format_of(path.parent) == "rlds"
    store = imported(path.parent, out=tmp_path / "store")
    found = store.episode(store.entries[0])
    assert np.array_equal(found.frames, moving(16, 16))
    assert found.actions[:, 0] == pytest.approx(at[:-1] / 10)
    assert found.terminated[-1]
