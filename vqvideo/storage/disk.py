"""What goes wrong with disks: full, read-only, gone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from vqvideo.errors import InputError

AnyPath = str | os.PathLike[str]


class DiskError(InputError):
    """The disk is full, read-only or gone: what was to be written, how large it is and how much room there is."""

    @classmethod
    def of(cls, error: OSError, path: AnyPath, size: int | None = None) -> Self:
        """What went wrong while `size` bytes were written to `path`."""
        what = f"{path}: cannot be written ({error.strerror or error})"
        needed = "" if size is None else f"{size} bytes are needed, "
        return cls(f"{what}; {needed}{_room_near(Path(path))}. What was there before is untouched")


def _room_near(path: Path) -> str:
    """The free bytes where `path` is or was going to be."""
    there = next((place for place in (path, *path.parents) if place.is_dir()), None)
    gone = "" if path.parent.is_dir() else f"the folder {path.parent} does not exist, "
    return f"{gone}{shutil.disk_usage(there).free} bytes are free" if there else f"{gone}nothing is known of the disk"


@contextmanager
def explained(path: Path, size: int | None = None) -> Iterator[None]:
    """Errors of the disk inside, as a DiskError about `path`."""
    try:
        yield
    except OSError as error:
        raise DiskError.of(error, path, size) from error
