"""What stands in a store beside its episodes: read as it was written, or refused with the file and the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stores import flip, lines_of, make_episode, make_meta, make_store, reopen, write_lines

from vqvideo.data.index import EpisodeEntry, StoreMeta, episode_file, read_meta, to_line
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError
from vqvideo.storage.files import seal
from vqvideo.storage.records import to_plain

# ---------------------------------------------------------------- meta


META = to_plain(make_meta())
LATER = {"missing", "env_kwargs", "pixels"}
"""Keys that older stores lack."""


def meta_from(folder: Path, record: dict[str, Any]) -> StoreMeta:
    (folder / "meta.json").write_text(json.dumps(seal(record)))
    return read_meta(folder)[0]


def test_meta_survives_json(tmp_path: Path) -> None:
    meta = make_meta(env_spec='{"id": "Tiny-v0"}')
    assert meta_from(tmp_path, to_plain(meta)) == meta


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, r"meta\.json: meta\.colour is not a setting"),
        ({"format_version": 2}, "format version 2, this version reads 1"),
        ({"frame_size": [4]}, "frame_size"),
        ({"frame_size": [4, 10**6]}, "frame_size"),
        ({"action_space": {}}, "action space"),
        ({"fps": 0}, r"fps: 0.0, expected a positive number"),
        ({"action_repeat": 0}, "action_repeat is 0, expected at least 1"),
        ({"seed": True}, "seed is True, expected int"),
        ({"versions": {"numpy": 2}}, "versions.numpy is 2, expected str"),
    ],
)
def test_impossible_meta_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        meta_from(tmp_path, META | change)


@pytest.mark.parametrize("key", sorted(META.keys() - LATER))
def test_meta_without_one_of_its_keys_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match=key.replace("format_version", "format version")):
        meta_from(tmp_path, {name: value for name, value in META.items() if name != key})


def test_meta_of_an_older_store_is_read(tmp_path: Path) -> None:
    assert meta_from(tmp_path, {name: value for name, value in META.items() if name not in LATER}) == make_meta()


def test_every_flipped_bit_of_the_meta_is_found(tmp_path: Path) -> None:
    make_store(tmp_path, [5, 5, 5])
    file = tmp_path / "meta.json"
    original = file.read_bytes()
    for byte in [*range(0, len(original) - 1, 13), len(original) - 2]:
        flip(file, byte, byte % 8)
        with pytest.raises(InputError, match=r"meta\.json"):
            Store.open(tmp_path)
        with pytest.raises(InputError, match=r"meta\.json"):
            reopen(tmp_path)
        file.write_bytes(original)
    assert len(Store.open(tmp_path).entries) == 3


def test_a_large_meta_is_refused_before_it_is_read(tmp_path: Path) -> None:
    make_store(tmp_path, [5])
    with open(tmp_path / "meta.json", "r+b") as file:
        file.truncate(2**30)
    with pytest.raises(InputError, match=r"meta.json: 1073741824 bytes, expected at most 1048576"):
        Store.open(tmp_path)


def test_the_meta_of_another_store_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "a", [5])
    with StoreWriter.open(tmp_path / "b", make_meta(fps=50.0)) as writer:
        writer.add(0, make_episode(5), "train")
    (tmp_path / "a" / "meta.json").write_bytes((tmp_path / "b" / "meta.json").read_bytes())
    with pytest.raises(InputError, match=r"a/meta.json: not the one that .*a/manifest.jsonl was written beside"):
        Store.open(tmp_path / "a")
    with pytest.raises(InputError, match=r"a/meta.json: not the one that"):
        reopen(tmp_path / "a", make_meta(fps=50.0))


# ---------------------------------------------------------------- lines


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            ({"file": name}, "is not the name of episode 0")
            for name in (
                "../../etc/passwd",
                "/etc/passwd",
                "episodes/../meta.json",
                "episodes/000001.safetensors",
                "http://x/000000.safetensors",
            )
        ),
        ({"index": -1, "file": "episodes/-00001.safetensors"}, "is not the name of episode -1"),
        ({"index": 10**12, "file": episode_file(10**12)}, "is not the name of episode 1000000000000"),
        ({"length": 0}, "length 0 or split 'train' is impossible"),
        ({"length": 10**12}, "length 1000000000000"),
        ({"length": 2.5}, "length is 2.5, expected int"),
        ({"split": "all"}, "split 'all' is impossible"),
        ({"sha256": None}, "sha256"),
        ({"more": 1}, "more"),
        ({"total_reward": 10**400}, "total_reward is 1000.*, expected float"),
    ],
)
def test_a_line_that_no_recording_writes_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    entry = make_store(tmp_path, [5]).entries[0]
    write_lines(tmp_path, [json.dumps(vars(entry) | change).encode() + b"\n"])
    with pytest.raises(InputError, match=rf"manifest.jsonl line 1: .*{message}"):
        Store.open(tmp_path)


def test_a_line_of_another_store_is_refused_at_opening(tmp_path: Path) -> None:
    entry = make_store(tmp_path, [5]).entries[0]
    write_lines(tmp_path, [to_line(EpisodeEntry(**(vars(entry) | {"meta": "0" * 16})))])
    with pytest.raises(InputError, match=r"meta.json: not the one that .*manifest.jsonl was written beside"):
        Store.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [lines[0], lines[1].replace(b"train", b"trail"), lines[2]], "line 2: length 5 or split 'trail'"),
        (lambda lines: [*lines[:2], lines[2][:-1] + b"J"], "the last byte is not a newline"),
        (lambda lines: [*lines, lines[1]], "episode 1 is recorded twice"),
    ],
)
def test_a_damaged_line_is_named_and_never_dropped(tmp_path: Path, change: Any, message: str) -> None:
    make_store(tmp_path, [5, 5, 5])
    write_lines(tmp_path, change(lines_of(tmp_path)))
    with pytest.raises(InputError, match=f"manifest.jsonl:? {message}"):
        Store.open(tmp_path)


def test_opening_touches_no_episode(tmp_path: Path) -> None:
    """Ten thousand entries whose files do not exist."""
    make_store(tmp_path, [5])
    entry = Store.open(tmp_path).entries[0]
    many = (EpisodeEntry(**(vars(entry) | {"index": i, "file": episode_file(i)})) for i in range(10_000))
    write_lines(tmp_path, [to_line(entry) for entry in many])
    assert len(Store.open(tmp_path).entries) == 10_000


def test_a_flipped_bit_in_a_line_gives_no_other_frames_actions_or_splits(tmp_path: Path) -> None:
    make_store(tmp_path, [5, 5, 5])
    file = tmp_path / "manifest.jsonl"
    original, entries = file.read_bytes(), Store.open(tmp_path).entries
    unread = {"seed": 0, "total_reward": 0.0, "terminated": False}
    for byte in range(0, len(original) - 1, 7):
        flip(file, byte, byte % 8)
        try:
            store = Store.open(tmp_path)
            store.verify()
            _ = [store.reader(entry) for entry in store.entries]
        except InputError:
            continue
        finally:
            file.write_bytes(original)
        assert [vars(e) | unread for e in store.entries] == [vars(e) | unread for e in entries]


def test_lines_with_a_digest_of_their_own_and_without_that_of_the_meta_are_read_and_gone_on_with(
    tmp_path: Path,
) -> None:
    store = make_store(tmp_path, [5, 5])
    old = [{name: value for name, value in vars(entry).items() if name != "meta"} for entry in store.entries]
    write_lines(tmp_path, [json.dumps(line | {"digest": "0" * 16}).encode() + b"\n" for line in old])
    assert Store.open(tmp_path).digest == store.digest
    with StoreWriter.open(tmp_path, make_meta()) as writer:
        writer.add(2, make_episode(5, 2), "train")
    assert [bool(entry.meta) for entry in Store.open(tmp_path).entries] == [False, False, True]
