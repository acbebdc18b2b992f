"""One writer per folder."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vqvideo.errors import InputError
from vqvideo.storage.files import AnyPath, disk_errors

LOCK = ".lock"
"""Name of the lock file in its folder."""


class FolderLock:
    """A file `.lock` that lets one process at a time write into a folder; use it with `with`.

    The operating system holds the lock for the process (`flock`), so that of a dead one is free at once.

    Args:
        folder: what is locked; it must exist.

    Raises:
        InputError: on entry, when another process holds the lock.
        DiskError: on entry, when the lock file cannot be written.
    """

    def __init__(self, folder: AnyPath) -> None:
        self.path = Path(folder) / LOCK
        # Not per thread: whatever thread of this process ends the writing may give the lock back.
        self._lock = FileLock(self.path, thread_local=False)

    def __enter__(self) -> FolderLock:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()

    def acquire(self) -> FolderLock:
        """Takes the lock or raises InputError."""
        with disk_errors(self.path):
            self.path.parent.stat()  # filelock would make a folder that is gone
            try:
                self._lock.acquire(blocking=False)
            except Timeout as error:
                raise InputError(
                    f"{self.path.parent} is being written by another process, which holds {self.path}: one writer at a "
                    "time"
                ) from error
        return self

    def release(self) -> None:
        """Gives the lock back; a second call, and one in a forked child, change nothing."""
        if self._lock.is_locked:
            with suppress(OSError):
                # While it is still held: whoever comes next makes a file of its own.
                self.path.unlink()
            self._lock.release()
