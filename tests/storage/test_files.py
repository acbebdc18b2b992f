"""The commit protocol: whole or not at all, and no bit changes unnoticed."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import in_fork
from stores import flip, make_store

from vqvideo.errors import InputError
from vqvideo.evaluation.pictures import write_mp4, write_png
from vqvideo.storage.checkpoint import save_model
from vqvideo.storage.files import (
    DiskError,
    FileRecord,
    Manifest,
    clean_temporaries,
    commit_folder,
    read_manifest,
    read_members,
    read_verified,
    remove_folder,
    seal,
    sha256_file,
    standing,
    unseal,
    write_file,
)
from vqvideo.training.run_folder import RunFolder

FILES = {"a.bin": b"first" * 50, "b.json": b"{}"}
FILE_CALLS = ("open", "mkdir", "fsync", "rename", "replace", "chmod", "unlink", "rmdir")


def verify_folder(path: Path) -> Manifest:
    """The manifest of a folder, all files of which are as they were written."""
    manifest = read_manifest(path)
    read_members(path, manifest, *manifest.files)
    return manifest


def survives_crash_at_every_call(action: Callable[[], Any], check: Callable[[], None]) -> int:
    """Runs `action` in children that die at their first, second, ... file call; `check` after each."""
    for calls in range(1, 200):

        def until_its_call(calls: int = calls) -> None:
            _die_at(calls)
            action()

        code = in_fork(until_its_call)
        check()
        if code == 0:
            return calls
    raise AssertionError("it never came to an end")


def _die_at(calls: int) -> None:
    left = [calls]

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return real(*args, **kwargs)

        return call

    for name in FILE_CALLS:
        setattr(os, name, dying(getattr(os, name)))


def test_a_replaced_folder_is_old_or_new_after_a_crash_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    commit_folder(path, FILES, {"turn": 0})
    set_aside = []

    def check() -> None:
        assert verify_folder(standing(path)).info["turn"] in (0, 1)
        set_aside.append(standing(path) != path)
        clean_temporaries(tmp_path)
        assert verify_folder(path).info["turn"] in (0, 1)
        assert [p.name for p in tmp_path.iterdir()] == ["folder"]

    def replace() -> None:
        commit_folder(path, {"c": b"third"}, {"turn": 1}, replace=True)

    assert survives_crash_at_every_call(replace, check) > 8
    assert any(set_aside), "no crash came between the two renames"
    assert verify_folder(path).info == {"turn": 1}


def test_a_folder_is_not_overwritten_unasked_nor_one_that_was_set_aside(tmp_path: Path) -> None:
    commit_folder(tmp_path / "folder", FILES, {"turn": 0})
    for _ in range(2):
        with pytest.raises(InputError, match="exists already"):
            commit_folder(tmp_path / "folder", FILES, {"turn": 1})
        standing(tmp_path / "folder").rename(tmp_path / ".tmp-old-12ab34cd-folder")
    assert verify_folder(standing(tmp_path / "folder")).info == {"turn": 0}
    commit_folder(tmp_path / "folder", FILES, {"turn": 1}, replace=True)
    assert verify_folder(tmp_path / "folder").info == {"turn": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_removed_folder_is_whole_or_gone_after_a_crash_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    commit_folder(path, FILES, {})

    def check() -> None:
        if path.exists():
            verify_folder(path)

    def remove() -> None:
        if path.exists():
            remove_folder(path)

    survives_crash_at_every_call(remove, check)
    assert not path.exists()


def test_a_committed_folder_reads_back(tmp_path: Path) -> None:
    contents = {**FILES, "c.txt": lambda: b"third"}
    manifest = commit_folder(tmp_path / "folder", contents, {"step": 3, "name": "é"})
    assert verify_folder(tmp_path / "folder") == manifest == read_manifest(tmp_path / "folder")
    assert manifest.info == {"step": 3, "name": "é"}
    assert manifest.files["c.txt"].size == 5
    assert manifest.files["a.bin"].sha256 == sha256_file(tmp_path / "folder" / "a.bin")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", ".hidden", "", "x\0", "a" * 5000, "http://x", "a\n"])
def test_file_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    record = {"format": "vqvideo-folder", "format_version": 1, "info": {}}
    record["files"] = {name: {"size": 1, "sha256": "0"}}
    (folder / "manifest.json").write_text(json.dumps(seal(record)))
    with pytest.raises(InputError, match="plain file name"):
        read_manifest(folder)


def test_links_and_pipes_are_refused_without_opening_them(tmp_path: Path) -> None:
    commit_folder(tmp_path / "folder", FILES, {})
    file = tmp_path / "folder" / "a.bin"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="expected a regular file"):
        verify_folder(tmp_path / "folder")
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(InputError, match="expected a regular file"):
        verify_folder(tmp_path / "folder")


@pytest.mark.parametrize("text", [b"{", b"[1]", b'{"digest": 5}', b'{"a": NaN, "digest": "0"}', b"[" * 10**5, b"\xff"])
def test_text_that_is_not_a_sealed_record_is_refused(text: bytes) -> None:
    with pytest.raises(InputError, match=r"here\.json"):
        unseal(text, "here.json")


def test_a_huge_manifest_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with open(tmp_path / "manifest.json", "wb") as file:
        file.truncate(10**12)
    with pytest.raises(InputError, match="expected at most"):
        read_manifest(tmp_path)


def test_a_failing_writer_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        commit_folder(tmp_path / "folder", {"a": b"1", "b": fail}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_names_the_path_and_leaves_the_old_file(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=rf"nowhere/file: cannot .*No such file.* \d+ bytes are free in {tmp_path}"):
        write_file(tmp_path / "nowhere" / "file", b"x")


def test_all_that_is_written_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    """Also what others write for us, as safetensors does."""
    old = os.umask(0o027)
    try:
        make_store(tmp_path / "store", [3])
        save_model(tmp_path / "model", "toy", {"a": 1}, {"w": torch.zeros(1)})
        write_mp4(tmp_path / "clip.mp4", np.zeros((2, 8, 8, 3), np.uint8), fps=10)
        write_png(tmp_path / "image.png", np.zeros((8, 8, 3), np.uint8))
        RunFolder(tmp_path).log({"step": 1, "split": "train"})
    finally:
        os.umask(old)
    found = {p.relative_to(tmp_path): stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*")}
    assert len(found) > 10
    assert found == {p: 0o750 if (tmp_path / p).is_dir() else 0o640 for p in found}


def test_what_interrupted_writers_left_is_removed_with_a_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (".tmp-12ab34cd-model", ".tmp-old-12ab34cd-model", ".tmp-12ab34cd-my-model", "model"):
        (tmp_path / name).mkdir()
    (tmp_path / ".tmp-34-y").write_text("half")
    clean_temporaries(tmp_path, of="model")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".tmp-12ab34cd-my-model", ".tmp-34-y", "model"]
    clean_temporaries(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert caplog.text.count("an interrupted writer left it") == 4


def test_the_bytes_that_are_used_are_the_bytes_that_were_checked(tmp_path: Path) -> None:
    manifest = commit_folder(tmp_path / "folder", FILES, {})
    file = tmp_path / "folder" / "a.bin"
    assert read_verified(file, manifest.files["a.bin"]) == FILES["a.bin"]
    for damage in (lambda: flip(file, 100), lambda: file.write_bytes(b"short"), file.unlink):
        damage()
        with pytest.raises(InputError, match=r"a\.bin"):
            read_verified(file, manifest.files["a.bin"])
    with pytest.raises(InputError, match="expected a regular file"):
        read_verified(tmp_path / "folder", FileRecord(0, "0"))
