"""One writer per folder: a lock file that says who writes, and is taken over when that process is gone."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from vqvideo.errors import InputError
from vqvideo.storage.files import AnyPath, DiskError, aside, write_new

logger = logging.getLogger(__name__)

LOCK = ".lock"
"""Name of the lock file in its folder."""
_UNREADABLE_SECONDS = 10
"""Without links a lock file is empty for a moment: one that stays unreadable for so long has no living writer."""
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What filesystems without hard links answer."""


class FolderLock:
    """A file `.lock` that lets one process at a time write into a folder; use it with `with`.

    A lock that a dead process of this machine left behind is taken over with a log line. Whether a process of another
    machine (or of another container on this one) lives cannot be seen from here: such a lock is respected until the
    user deletes it.

    Args:
        folder: what is locked; it must exist.

    Raises:
        InputError: on entry, when a living process, or one that cannot be seen from here, holds the lock.
        DiskError: on entry, when the lock file cannot be written.
    """

    def __init__(self, folder: AnyPath) -> None:
        self.folder = Path(folder)
        self.path = self.folder / LOCK
        self._content = b""

    def __enter__(self) -> FolderLock:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> FolderLock:
        """Takes the lock or raises InputError."""
        content = json.dumps(_myself()).encode()
        for _ in range(2):
            try:
                _create(self.path, content)
                self._content = content
                return self
            except FileExistsError:
                self._reclaim()
            except OSError as error:
                raise DiskError.of(error, self.path, len(content)) from error
        raise InputError(f"{self.folder}: another process took the lock just now; try again")

    def release(self) -> None:
        """Gives the lock back; a forked child, a second call and a lock that someone else took change nothing."""
        if not self._content or json.loads(self._content)["pid"] != os.getpid():
            return
        content, self._content = self._content, b""
        # Whoever locks next sees that we are gone, should the disk be.
        with suppress(OSError):
            if self.path.read_bytes() == content:
                self.path.unlink()

    def refuse_others(self) -> None:
        """Raises InputError when another process writes into the folder. Nothing is taken."""
        with suppress(FileNotFoundError):
            self._refuse_living(self._found())

    def _found(self) -> bytes:
        if not stat.S_ISREG(os.lstat(self.path).st_mode):
            raise InputError(f"{self.path}: expected a lock file, found a link, a folder or a device; remove it")
        return self.path.read_bytes()

    def _reclaim(self) -> None:
        try:
            found = self._found()
        except FileNotFoundError:
            return
        self._refuse_living(found)
        moved = aside(self.path)
        try:
            os.rename(self.path, moved)
        except FileNotFoundError:
            return
        if moved.read_bytes() != found:
            os.rename(moved, self.path)
            return
        logger.warning("taking over %s: its process is gone", self.path)
        moved.unlink()

    def _refuse_living(self, found: bytes) -> None:
        try:
            holder = json.loads(found)
            pid, host, started = int(holder["pid"]), str(holder["host"]), str(holder["process_start"])
            place = str(holder.get("place", ""))
        except (ValueError, KeyError, TypeError) as error:
            if time.time() - self.path.stat().st_mtime > _UNREADABLE_SECONDS:
                return
            raise InputError(f"{self.path}: unreadable; if no other process runs, delete it") from error
        here = host == socket.gethostname() and place in ("", _place())
        if here and not _is_alive(pid, started):
            return
        remedy = "" if here else ". If it is gone, delete the lock file"
        raise InputError(
            f"{self.folder} is being written by process {pid} on {host} since {holder.get('since')}"
            f" (lock file {self.path}): one writer at a time{remedy}"
        )


def _create(path: Path, content: bytes) -> None:
    """A new file that is never seen half written, not even after a crash. FileExistsError if there is one."""
    whole = aside(path)
    try:
        write_new(whole, content)
        os.link(whole, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        write_new(path, content)
    finally:
        whole.unlink(missing_ok=True)


def _myself() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "place": _place(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "process_start": _process_start(os.getpid()),
    }


def _place() -> str:
    """Whose process numbers these are: those of another container mean nothing here. "" where nobody says."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _process_start(pid: int) -> str:
    """Boot and kernel's start time of a process; "" where there is no /proc, "gone" for a dead process."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "gone" if Path("/proc/self/stat").exists() else ""
    return "gone" if state == "Z" else f"{fields[18]} {_boot()}".strip()


def _boot() -> str:
    """Names this start of the machine: after a power failure all its locks are dead ones'."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _is_alive(pid: int, started: str) -> bool:
    now = _process_start(pid)
    if now and started:
        # A restarted machine or container deals out the same process numbers: the start tells them apart.
        return now == started or now.split()[0] == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
