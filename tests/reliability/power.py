"""What a disk holds after a power failure: what was synced, and nothing else that one could count on."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, NamedTuple


class _Entry(NamedTuple):
    """What a name in a folder stands for."""

    inode: int
    is_folder: bool


class PowerModel:
    """Watches the fsyncs below a folder and rebuilds what is durable: the content that a file had when it was last
    synced, and the names that a folder had when it was last synced. What is there when the watch begins is durable.

    The simplest model of a disk that POSIX allows; real filesystems promise more, each something else.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._content: dict[int, bytes] = {}
        self._names: dict[int, dict[str, _Entry]] = {}
        self._held: list[int] = []
        for path in [root, *root.rglob("*")]:
            self._sync(path)

    def watch(self) -> None:
        """From now on every fsync of this process counts."""
        fsync = os.fsync

        def watched(handle: int) -> None:
            fsync(handle)
            self._sync(Path(os.readlink(f"/proc/self/fd/{handle}")))

        os.fsync = watched  # type: ignore[assignment]

    def leave(self, place: Path, *, keep_names: bool) -> None:
        """Puts into a new folder what a failure now would leave of the root.

        Args:
            place: the new folder.
            keep_names: whether names that were not synced are there nonetheless, with what is durable of the content.
        """
        # What is there now is looked at before anything is written: this process watches itself.
        folders = [p for p in [self.root, *self.root.rglob("*")] if p.is_dir()] if keep_names else []
        names = self._names | {os.stat(folder).st_ino: _names(folder) for folder in folders}
        self._leave(_Entry(os.stat(self.root).st_ino, True), place, names)

    def _leave(self, entry: _Entry, place: Path, names: dict[int, dict[str, _Entry]]) -> None:
        if not entry.is_folder:
            _write(place, self._content.get(entry.inode, b""))
            return
        _mkdir(str(place))
        for name, inner in names.get(entry.inode, {}).items():
            self._leave(inner, place / name, names)

    def _sync(self, path: Path) -> None:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            self._names[found.st_ino] = _names(path)
            return
        handle = _open(str(path), os.O_RDONLY)
        # Held open, so that the number of a removed file is given to no other one.
        self._held.append(handle)
        self._content[found.st_ino] = _read(handle)


def _names(folder: Path) -> dict[str, _Entry]:
    return {found.name: _Entry(found.inode(), found.is_dir(follow_symlinks=False)) for found in os.scandir(folder)}


# The real ones: those in `os` may count the calls of the writer that is watched.
_open, _mkdir, _os_read, _os_write, _close = os.open, os.mkdir, os.read, os.write, os.close


def _read(handle: int) -> bytes:
    parts: list[bytes] = []
    while part := _os_read(handle, 2**20):
        parts.append(part)
    return b"".join(parts)


def _write(path: Path, data: bytes) -> None:
    handle: Any = _open(str(path), os.O_WRONLY | os.O_CREAT, 0o666)
    view = memoryview(data)
    while view:
        view = view[_os_write(handle, view) :]
    _close(handle)
