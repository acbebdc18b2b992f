"""What killed or living writers leave beside the things: temporaries, locks, checkpoints that were set aside."""

from __future__ import annotations

import re
from pathlib import Path

from vqvideo.errors import InputError
from vqvideo.storage import files
from vqvideo.storage.locks import FolderLock
from vqvideo.verification.findings import Remark
from vqvideo.verification.kinds import Listing

_OLD = re.compile(r"\.tmp-old-[0-9a-f]+-(.+)")
_SET_ASIDE = re.compile(r"damaged-step-\d{8}")
_LOCK_BYTES = 4096


def left_in(path: Path, names: Listing) -> list[tuple[Path, Remark]]:
    """Notes on the leftovers of one folder."""
    found = []
    for name in sorted({*names.files, *names.folders, *names.others}):
        if name.startswith(".tmp-"):
            found.append((path / name, _temporary(name, names)))
        elif name == ".lock":
            found.append((path / name, Remark("", _lock(path))))
        elif _SET_ASIDE.fullmatch(name):
            what = "a damaged checkpoint that was set aside when the run was resumed"
            found.append((path / name, Remark("", what, "nothing uses it: remove it when you like")))
        elif name in names.others:
            what = "a link, a pipe or a device: not followed and not opened"
            found.append((path / name, Remark("", what, "to check what a link leads to, name that folder")))
    return found


def living_writer(path: Path) -> str | None:
    """Who writes into a folder now, or may do so; None if nobody does."""
    try:
        if files.check_regular(path / ".lock").st_size > _LOCK_BYTES:
            return None
        FolderLock(path).refuse_others()
    except InputError as error:
        return str(error) if "lock file" in str(error) else None
    except (OSError, OverflowError, RecursionError):
        return None
    return None


def _lock(path: Path) -> str:
    writer = living_writer(path)
    return f"a lock: {writer}" if writer else "a lock that nobody holds any more: the next writer takes it over"


def _temporary(name: str, names: Listing) -> Remark:
    moved = _OLD.fullmatch(name)
    if moved and moved[1] not in names:
        what = f"{moved[1]} as it was before its replacement was interrupted"
        return Remark("", what, f"the next writer puts it back; by hand: rename it to {moved[1]}")
    what = "the work of a writer that was interrupted, or is still at it"
    return Remark("", what, "remove it when no process writes there; recordings and trainings do so themselves")
