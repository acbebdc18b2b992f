"""Folders that cannot be written, as on a disk that is mounted read-only. Permissions would not do: they do not count
for root.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = frozenset(
    f"os.{name}" for name in ("chmod", "link", "mkdir", "remove", "rename", "rmdir", "symlink", "truncate", "utime")
)
_folders: list[str] = []
"""Those that are read-only now."""
_installed: list[bool] = []


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Python calls this before whatever it does to a file, and does not do it after an error."""
    if not _folders or not (event in _CHANGES or (event == "open" and arguments[2] & _WRITING)):
        return
    for path in arguments[:2]:
        if isinstance(path, str | bytes | os.PathLike):
            place = os.path.realpath(os.fsdecode(path))
            if any(place == folder or place.startswith(folder + os.sep) for folder in _folders):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), place)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Makes a folder and all in it read-only for this process."""
    if not _installed:
        sys.addaudithook(_refuse)  # for good: there is no way to take one back
        _installed.append(True)
    _folders.append(os.path.realpath(folder))
    try:
        yield
    finally:
        _folders.pop()
