"""One writer per folder: the living are respected, the dead are not waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import in_fork

from vqvideo.errors import InputError
from vqvideo.storage.files import DiskError
from vqvideo.storage.locks import FolderLock

HOLD = "import os, sys; from vqvideo.storage.locks import FolderLock; lock = FolderLock(sys.argv[1]).acquire(); "


def test_a_lock_is_gone_after_use(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_a_living_process_is_respected(tmp_path: Path) -> None:
    holder = f"is being written by another process, which holds {tmp_path}/.lock: one writer at a time"
    with FolderLock(tmp_path), pytest.raises(InputError, match=holder):
        FolderLock(tmp_path).acquire()
    FolderLock(tmp_path).acquire().release()


def test_a_lock_of_a_dead_process_is_taken_over_though_a_child_of_it_lives(tmp_path: Path) -> None:
    # The child speaks, so that it has begun to be one of its own before its parent is gone.
    code = HOLD + "os.fork() or (print(os.getpid(), flush=True), sys.stdin.read()); os._exit(9)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=-1, stdout=-1) as process:
        child = int(process.stdout.readline())  # type: ignore[union-attr]
        assert process.wait(60) == 9
        os.kill(child, 0)
        assert (tmp_path / ".lock").exists()
        with FolderLock(tmp_path):
            pass
        os.kill(child, signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_does_not_give_the_lock_back(tmp_path: Path) -> None:
    with FolderLock(tmp_path) as lock:
        assert in_fork(lock.release) == 0
        with pytest.raises(InputError, match="is being written"):
            FolderLock(tmp_path).acquire()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DiskError, match=r"\.lock: cannot be written"):
        FolderLock(tmp_path).acquire()
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_gone_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"gone/\.lock: cannot be written"):
        FolderLock(tmp_path / "gone").acquire()
