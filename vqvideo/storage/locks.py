"""One writer per folder."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vqvideo.errors import InputError
from vqvideo.storage.files import AnyPath, check_regular, disk_errors

LOCK = ".lock"
"""Name of the lock file in its folder."""


class FolderLock:
    """A file `.lock` that lets one process at a time write into a folder; use it with `with`.

    The operating system holds the lock for the process (`flock`), so that of a dead one is free at once. What stands in
    the file only tells others who writes.

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
        self._process = -1

    def __enter__(self) -> FolderLock:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()

    def acquire(self) -> FolderLock:
        """Takes the lock or raises InputError."""
        with disk_errors(self.path):
            self.path.parent.stat()
            if os.path.lexists(self.path):
                check_regular(self.path)
            writer = self._writer()
            try:
                self._lock.acquire(blocking=False)
            except Timeout as error:
                raise InputError(
                    f"{self.path.parent} is being written by {writer} (lock file {self.path}): one writer at a time"
                ) from error
        self._process = os.getpid()
        myself = {"pid": self._process, "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with suppress(OSError):
            self.path.write_text(json.dumps(myself))
        return self

    def release(self) -> None:
        """Gives the lock back; a second call, and one in a forked child, change nothing."""
        if self._process != os.getpid():
            return
        self._process = -1
        with suppress(OSError):
            # While it is still held: whoever comes next makes a file of its own.
            self.path.unlink()
        self._lock.release()

    def _writer(self) -> str:
        """Who holds the lock, if the file tells."""
        try:
            holder = json.loads(self.path.read_bytes())
            return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
