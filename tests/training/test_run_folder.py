"""The folder of a run: one writer, room enough, and no damaged line used."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from tiny_models import train_config

from vqvideo.errors import InputError
from vqvideo.storage.files import DiskError
from vqvideo.training.launch import make_accelerator
from vqvideo.training.run_folder import RunFolder, prepare_run

Usage = namedtuple("Usage", "total used free")


def prepared(path: Path, *, resume: bool = False) -> RunFolder:
    cfg = train_config()
    return prepare_run(path, resume=resume, settings=cfg, accelerator=make_accelerator(cfg, path))


def test_one_process_at_a_time_writes_into_a_run(tmp_path: Path) -> None:
    with prepared(tmp_path / "run") as run:
        with pytest.raises(InputError, match="is being written by another process"):
            prepared(tmp_path / "run", resume=True)
        assert (run.path / ".lock").exists()
    prepared(tmp_path / "run", resume=True).close()
    assert not (run.path / ".lock").exists()


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepared(tmp_path / "run").close()
    left = [tmp_path / "run" / name for name in ("x", "media/x", "checkpoints/x")]
    left = [path.with_name(".tmp-0123abcd-x") for path in left]
    for path in left:
        path.touch()
    prepared(tmp_path / "run", resume=True).close()
    assert not any(path.exists() for path in left)
    assert caplog.text.count("an interrupted writer left it") == 3


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(DiskError, match=r"run/media: cannot be written \(Not a directory\)"):
        prepared(tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize(("keep", "there", "more"), [(2, 0, 3), (5, 0, 6), (5, 4, 2), (2, 4, 1)])
def test_room_is_asked_for_as_many_checkpoints_as_will_be_there_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int, there: int, more: int
) -> None:
    with prepared(tmp_path / "run") as run:
        for step in range(there):
            path = run.checkpoints / f"step-{step:08d}"
            path.mkdir()
            (path / "manifest.json").touch()
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, more * 2**20))
        run.check_room(2**20, keep)
        with pytest.raises(DiskError, match=rf"{more} more .* of 1\.5 MiB must fit, {more}\.0 MiB .*keep is {keep}"):
            run.check_room(2**20 + 2**19, keep)


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"split": "train"}', b'{"step": "1", "split": "train"}', b"\xff"])
def test_a_damaged_line_of_the_log_is_named_and_the_torn_end_is_none(tmp_path: Path, line: bytes) -> None:
    with prepared(tmp_path / "run") as run:
        run.log({"step": 1, "split": "train"})
        run.log({"step": 2, "split": "train"})
        with open(run.metrics, "ab") as file:
            file.write(b'{"step": 3, "sp')
        assert [record["step"] for record in run.records()] == [1, 2]
        lines = run.metrics.read_bytes().split(b"\n")
        run.metrics.write_bytes(b"\n".join([lines[0], line, *lines[1:]]))
        with pytest.raises(InputError, match=r"metrics\.jsonl line 2: "):
            run.rewind(1)
        assert json.loads(run.metrics.read_bytes().split(b"\n")[0])["step"] == 1
