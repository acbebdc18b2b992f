"""The store: durable after every episode, and a changed bit never goes unnoticed."""

from __future__ import annotations

import copy
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import flip, lines_of, make_episode, make_meta, make_store, reopen, write_lines

from vqvideo.data import store as store_module
from vqvideo.data.index import EpisodeEntry, lasting, to_line
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace
from vqvideo.storage import files
from vqvideo.storage.files import DiskError

# ---------------------------------------------------------------- writing and reading


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    with StoreWriter.open(tmp_path / "s", make_meta()) as writer:
        written = [writer.add(i, make_episode(10 + i, i), "held_out" if i == 1 else "train") for i in (2, 0, 1)]
    store = Store.open(tmp_path / "s")
    assert store.meta == make_meta()
    assert store.entries == tuple(sorted(written, key=lambda entry: entry.index))
    assert [e.index for e in store.split("train")] == [0, 2]
    assert [e.index for e in store.split("held_out")] == [1]
    entry = store.entries[2]
    assert (entry.length, entry.seed, entry.terminated, entry.total_reward) == (12, 2, True, 66.0)
    assert np.array_equal(store.episode(entry).frames, make_episode(12, 2).frames)
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == ["episodes", "manifest.jsonl", "meta.json"]
    store.verify()


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    with pytest.raises(InputError, match="split 'test', expected one of"):
        store.split("test")
    with (
        StoreWriter.open(tmp_path, make_meta()) as writer,
        pytest.raises(InputError, match="split 'test', expected one of"),
    ):
        writer.add(9, make_episode(), "test")


def test_a_store_without_episodes_says_how_to_record_some(tmp_path: Path) -> None:
    message = rf"no episodes in {tmp_path}.*Record some: python scripts/record.py --env CarRacing"
    with pytest.raises(InputError, match=message):
        Store.open(tmp_path / "nothing")
    reopen(tmp_path / "s")
    with pytest.raises(InputError, match=message):
        Store.open(tmp_path / "s")


def test_the_digest_identifies_the_content_and_not_the_order_of_recording(tmp_path: Path) -> None:
    def digest(name: str, order: list[int], **changes: Any) -> str:
        with StoreWriter.open(tmp_path / name, make_meta(**changes)) as writer:
            for i in order:
                writer.add(i, make_episode(5, i), "train")
        return Store.open(tmp_path / name).digest

    assert digest("a", [0, 1, 2]) == digest("b", [2, 0, 1], versions={"numpy": "2"})
    settings: tuple[dict[str, Any], ...] = ({"fps": 9.0}, {"env_kwargs": {"size": 3}}, {"pixels": "render"})
    others = {digest(f"other {i}", [0, 1, 2], **changes) for i, changes in enumerate(settings)}
    assert len({digest("a", []), digest("c", [0, 1]), digest("d", [0, 1, 3]), *others}) == 6


def test_settings_that_came_later_leave_older_stores_the_same() -> None:
    """Otherwise all runs would forget their stores: only what is set may count."""
    first = "env_id env_spec action_space frame_size fps action_repeat skip_first policy seed held_out_every"
    assert lasting(make_meta()).keys() == {*first.split(), "format_version"}
    assert lasting(make_meta(pixels="render")).keys() == {*first.split(), "format_version", "pixels"}


@pytest.mark.parametrize(
    ("index", "episode", "message"),
    [
        (0, make_episode(), "episode 0: the number is taken"),
        (-1, make_episode(), "taken or negative"),
        (7, make_episode(5, actions=np.full((5, 1), 9.0)), r"episode 7: actions\[0\]: column 0 is 9.0"),
        (7, make_episode(5, frames=np.zeros((6, 6, 4, 3), np.uint8)), r"\(6, 6, 4, 3\), expected uint8 \(6, 4, 6, 3\)"),
        (7, make_episode(5, frames=np.zeros((6, 4, 6, 3))), "episode 7: frames: found float64"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused_and_leaves_no_trace(
    tmp_path: Path, index: int, episode: Any, message: str
) -> None:
    make_store(tmp_path, [5])
    before = sorted(tmp_path.rglob("*"))
    with StoreWriter.open(tmp_path, make_meta()) as writer, pytest.raises(InputError, match=message):
        writer.add(index, episode, "train")
    assert sorted(tmp_path.rglob("*")) == before
    assert len(Store.open(tmp_path).entries) == 1


def test_no_file_of_hundreds_is_opened_a_second_time_for_its_steps(tmp_path: Path) -> None:
    store = make_store(tmp_path, [5] * 80)
    read = [store.reader(entry).steps for entry in store.entries]
    shutil.rmtree(tmp_path / "episodes")
    for steps, entry in zip(read, store.entries, strict=True):
        assert store.reader(entry).steps is steps


def test_what_is_kept_of_episodes_has_a_limit_and_each_file_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_READERS", 3)
    store, hashed, read = make_store(tmp_path, [5] * 8), [], files.verify_file
    monkeypatch.setattr(files, "verify_file", lambda path, record: (hashed.append(path.name), read(path, record)))
    for entry in store.entries * 2:
        store.reader(entry)
    assert list(store._readers) == [5, 6, 7]
    assert hashed == [f"00000{index}.safetensors" for index in range(8)]
    first = store.reader(store.entries[5])
    store.reader(store.entries[0])
    assert store.reader(store.entries[5]) is first


def test_a_copied_store_reads_its_own(tmp_path: Path) -> None:
    store = make_store(tmp_path, [5])
    reader = store.reader(store.entries[0])
    other = copy.deepcopy(store)
    assert not other._readers
    assert np.array_equal(other.episode(other.entries[0]).frames, reader.episode().frames)


# ---------------------------------------------------------------- continuing


def test_a_recording_continues_where_it_was_interrupted(tmp_path: Path) -> None:
    make_store(tmp_path, [5, 5])
    with StoreWriter.open(tmp_path, make_meta(versions={"numpy": "2"})) as writer:
        assert writer.indices == {0, 1}
        assert writer.meta.versions == {"numpy": "1"}
        writer.add(2, make_episode(5, 2), "train")
        assert writer.indices == {0, 1, 2}
    assert len(Store.open(tmp_path).entries) == 3


def test_continuing_with_other_settings_lists_what_differs(tmp_path: Path) -> None:
    make_store(tmp_path, [5])
    space = ActionSpace.from_json({"kind": "discrete", "shape": [], "dtype": "int64", "low": [0], "high": [2]})
    with pytest.raises(InputError, match=r"(?s)fps: 25.0 -> 50.0.*Record into another folder") as caught:
        reopen(tmp_path, make_meta(fps=50.0, action_space=space))
    assert "action_space: Discrete(5) -> Discrete(3)" in str(caught.value)
    assert "policy" not in str(caught.value)
    assert not (tmp_path / ".lock").exists()


def test_a_torn_line_and_the_file_of_an_interrupted_episode_are_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_store(tmp_path, [5, 5, 5])
    lines = lines_of(tmp_path)
    for cut in (1, len(lines[2]) // 2, len(lines[2]) - 1):
        write_lines(tmp_path, [*lines[:2], lines[2][:cut]])
        (tmp_path / ".tmp-00-x").touch()
        (tmp_path / "episodes" / ".tmp-00-000003.safetensors").touch()
        (tmp_path / "episodes" / "notes.txt").touch()
        assert [e.index for e in Store.open(tmp_path).entries] == [0, 1]
        with caplog.at_level(logging.WARNING), StoreWriter.open(tmp_path, make_meta()) as writer:
            assert writer.indices == {0, 1}
            assert sorted(p.name for p in (tmp_path / "episodes").iterdir()) == [
                "000000.safetensors",
                "000001.safetensors",
                "notes.txt",
            ]
            assert all(word in caplog.text for word in ("the last line is torn", "000002.safetensors", ".tmp-00-x"))
            writer.add(2, make_episode(5, 2), "train")
        assert lines_of(tmp_path) == lines
        caplog.clear()


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(tmp_path, [5])
    before = lines_of(tmp_path)
    with StoreWriter.open(tmp_path, make_meta()) as writer:
        with monkeypatch.context() as patch:
            fsync = os.fsync

            def full(handle: int) -> None:
                if os.readlink(f"/proc/self/fd/{handle}").endswith("manifest.jsonl"):
                    raise OSError(28, "No space left on device")
                fsync(handle)

            patch.setattr(os, "fsync", full)
            with pytest.raises(DiskError, match=r"No space left on device\); \d+ bytes are free in"):
                writer.add(1, make_episode(5, 1), "train")
        assert lines_of(tmp_path) == before
        writer.add(1, make_episode(5, 1), "train")
    assert len(Store.open(tmp_path).entries) == 2


def test_two_writers_do_not_share_a_store(tmp_path: Path) -> None:
    with StoreWriter.open(tmp_path, make_meta()), pytest.raises(InputError, match="written by another process"):
        reopen(tmp_path)
    reopen(tmp_path)


def test_a_folder_that_cannot_be_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="episodes: cannot be written"):
        reopen(tmp_path / "file")
    with pytest.raises(InputError, match="no episodes in"):
        Store.open(tmp_path / "file")


def test_a_store_without_its_meta_is_not_overwritten(tmp_path: Path) -> None:
    make_store(tmp_path, [5])
    (tmp_path / "meta.json").unlink()
    with pytest.raises(InputError, match=r"has a manifest.jsonl but no meta.json"):
        reopen(tmp_path)
    with pytest.raises(InputError, match=r"meta.json: no such file"):
        Store.open(tmp_path)


# ---------------------------------------------------------------- damage


def test_every_flipped_bit_of_an_episode_is_found_on_first_touch(tmp_path: Path) -> None:
    entry = make_store(tmp_path, [5]).entries[0]
    file = tmp_path / entry.file
    original = file.read_bytes()
    for byte in range(0, len(original), 13):
        flip(file, byte, byte % 8)
        with pytest.raises(InputError, match=rf"000000.safetensors: sha256 is .* but {entry.sha256}"):
            Store.open(tmp_path).reader(entry)
        file.write_bytes(original)
    for cut in (0, 1, len(original) // 2, len(original) - 1):
        file.write_bytes(original[:cut])
        with pytest.raises(InputError, match=rf"000000.safetensors: {cut} bytes, but {len(original)}"):
            Store.open(tmp_path).reader(entry)


def test_links_are_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [5])
    file = tmp_path / "s" / store.entries[0].file
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="expected a regular file"):
        store.reader(store.entries[0])
    (tmp_path / "s" / "episodes").rename(tmp_path / "e")
    (tmp_path / "s" / "episodes").symlink_to(tmp_path / "e")
    with pytest.raises(InputError, match="found a link"):
        Store.open(tmp_path / "s")


def test_an_episode_that_is_not_what_the_manifest_says_is_refused(tmp_path: Path) -> None:
    entry = make_store(tmp_path, [5]).entries[0]
    lie = EpisodeEntry(**(vars(entry) | {"length": 6}))
    write_lines(tmp_path, [to_line(lie)])
    store = Store.open(tmp_path)
    with pytest.raises(InputError, match=r"is \(5, .* the store says \(6, "):
        store.reader(store.entries[0])


# ---------------------------------------------------------------- what belongs together


@pytest.mark.parametrize("left", [1, 2])
def test_lines_that_are_lost_are_told_and_the_files_that_they_named_are_kept(
    tmp_path: Path, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    make_store(tmp_path, [5] * 7)
    write_lines(tmp_path, lines_of(tmp_path)[:left])
    with caplog.at_level(logging.WARNING):
        assert len(Store.open(tmp_path).entries) == left
    assert f"names no {tmp_path}/episodes/00000{left}.safetensors, " in caplog.text
    assert f"and {3 - left} more" in caplog.text
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"manifest.jsonl has lost lines: none names .*Restore it from a copy"):
        reopen(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("damage", ["emptied", "deleted"])
def test_a_manifest_that_is_lost_as_a_whole_is_no_empty_store(tmp_path: Path, damage: str) -> None:
    make_store(tmp_path, [5, 5])
    (tmp_path / "manifest.jsonl").unlink()
    if damage == "emptied":
        (tmp_path / "manifest.jsonl").touch()
    for use in (Store.open, reopen):
        with pytest.raises(InputError, match=r"manifest.jsonl has lost lines: none names .*000000.*, .*000001"):
            use(tmp_path)


def test_a_recording_under_way_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its newest file is there before the line."""
    make_store(tmp_path, [5, 5])
    write_lines(tmp_path, lines_of(tmp_path)[:1])
    with caplog.at_level(logging.WARNING):
        assert len(Store.open(tmp_path).entries) == 1
    assert "000001.safetensors: a recording under way or interrupted leaves one such file" in caplog.text
