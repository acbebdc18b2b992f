"""One writer per folder: the living are respected, the dead are not waited for."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import pytest
from processes import in_fork, run

from vqvideo.errors import InputError
from vqvideo.storage import locks
from vqvideo.storage.files import DiskError
from vqvideo.storage.locks import FolderLock


def _lock_of(pid: int, host: str = "", start: str = "1") -> str:
    host = host or socket.gethostname()
    return json.dumps({"pid": pid, "host": host, "since": "2020-01-01", "process_start": start})


def test_a_lock_is_gone_after_use(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_a_living_process_is_respected(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        with pytest.raises(InputError, match=f"process {os.getpid()} on {socket.gethostname()}"):
            FolderLock(tmp_path).acquire()
        assert (tmp_path / ".lock").exists()


def test_a_lock_of_a_dead_process_is_taken_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = "import os, sys, vqvideo.storage.locks as d; d.FolderLock(sys.argv[1]).acquire(); os._exit(9)"
    assert run(sys.executable, "-c", code, tmp_path, cwd=tmp_path).code == 9
    assert (tmp_path / ".lock").exists()
    with FolderLock(tmp_path):
        assert "taking over" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_an_earlier_process_with_our_number_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text(_lock_of(os.getpid()))
    FolderLock(tmp_path).acquire().release()


def test_a_lock_of_another_host_is_respected(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text(_lock_of(1, host="elsewhere"))
    with pytest.raises(InputError, match=r"process 1 on elsewhere.*delete the lock file"):
        FolderLock(tmp_path).acquire()


def test_a_lock_that_was_never_filled_is_respected_for_a_moment_only(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    with pytest.raises(InputError, match="unreadable"):
        FolderLock(tmp_path).acquire()
    os.utime(tmp_path / ".lock", (0, 0))
    FolderLock(tmp_path).acquire().release()


def test_a_forked_child_does_not_give_the_lock_back(tmp_path: Path) -> None:
    with FolderLock(tmp_path) as lock:
        assert in_fork(lock.release) == 0
        assert (tmp_path / ".lock").exists()


def test_a_lock_of_another_container_on_this_host_is_foreign(tmp_path: Path) -> None:
    holder = json.loads(_lock_of(2**22 + 1)) | {"place": "pid:[1]"}
    (tmp_path / ".lock").write_text(json.dumps(holder))
    with pytest.raises(InputError, match="If it is gone, delete the lock file"):
        FolderLock(tmp_path).acquire()


def test_a_lock_that_is_no_file_is_refused_without_opening_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(InputError, match="expected a lock file, found a link, a folder or a device"):
        FolderLock(tmp_path).acquire()


def test_a_lock_from_before_the_machine_was_started_is_taken_over(tmp_path: Path) -> None:
    own = locks._myself()
    (tmp_path / ".lock").write_text(json.dumps(own | {"process_start": own["process_start"].split()[0] + " boot"}))
    FolderLock(tmp_path).acquire().release()


def test_a_lock_that_someone_else_took_meanwhile_is_not_given_back(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path).acquire()
    (tmp_path / ".lock").write_text(_lock_of(1, host="elsewhere"))
    lock.release()
    assert (tmp_path / ".lock").exists()


def test_a_folder_that_is_gone_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"gone/\.lock: cannot be written"):
        FolderLock(tmp_path / "gone").acquire()
