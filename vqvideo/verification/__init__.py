"""Checks anything that vqvideo has written: may it be used, which file is wrong, and what to do.

    from vqvideo.verification import lines_of, verify

    report = verify([Path("data/car_racing"), Path("runs/car_racing")])
    print(*lines_of(report), sep="\\n")

What has a digest is compared with it: episodes, models, checkpoints, caches of codes. Beyond that, numbers must be
finite, headers must be those that the manifest names, and settings and metrics must be readable; these last two have no
digest, so that a changed digit in them is found only where another file knows better. Pictures and videos are not
checked. Verification only reads; it follows no link and opens nothing but regular files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from vqvideo.errors import InputError
from vqvideo.verification.caches import check_cache
from vqvideo.verification.checkpoints import check_checkpoint
from vqvideo.verification.cross import compare
from vqvideo.verification.findings import Facts, Remark, Report, Thing, reason
from vqvideo.verification.leftovers import living_writer
from vqvideo.verification.models import check_model
from vqvideo.verification.repair import Repair, repair_store
from vqvideo.verification.runs import check_report, check_rounds, check_stage
from vqvideo.verification.stores import check_store
from vqvideo.verification.text import lines_of
from vqvideo.verification.walk import Found, Place, find
from vqvideo.verification.work import Work

__all__ = ["Facts", "Remark", "Report", "Thing", "lines_of", "verify"]

_EXPECTED = (
    "expected a store (meta.json, manifest.jsonl, episodes/), a model (config.json, model.safetensors, manifest.json), "
    "a run such as runs/NAME, or a folder that holds some of these"
)
_TRIES = 3


def verify(folders: Sequence[Path], *, deep: bool = False, repair: bool = False, progress: bool = False) -> Report:
    """Checks all that vqvideo has written under some folders.

    Args:
        folders: where to look; everything nested is found.
        deep: also decode every frame, compare every action with its space, and load every model.
        repair: set damaged episodes of stores aside (see `repair_store`); without it nothing is written.
        progress: show a bar, if there is a terminal.

    Raises:
        InputError: no such folder, or nothing of vqvideo's in it; or a store that is to be repaired is being written.
    """
    if not folders:
        raise InputError(f"no folder to check: {_EXPECTED}")
    found = _found_in(folders)
    things = []
    total = sum(part.bytes for part in found)
    off = None if progress else True
    with tqdm(total=total, unit="B", unit_scale=True, desc="verifying", leave=False, disable=off) as bar:
        work = Work(deep, bar.update)
        for place in dict.fromkeys(place for part in found for place in part.places):
            thing = _check(place, work)
            if repair and thing.kind == "store" and thing.damage:
                thing = _repaired(place, thing, work)
            things.append(thing)
    compare(things)
    leftovers = {path: remark for part in found for path, remark in part.leftovers}
    known = {thing.path / remark.where for thing in things for remark in thing.damage}
    return Report(tuple(things), tuple((path, remark) for path, remark in leftovers.items() if path not in known))


def _found_in(folders: Sequence[Path]) -> list[Found]:
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; {_EXPECTED}")
        found.append(find(folder))
        if not found[-1].places:
            raise InputError(f"{folder}: nothing of vqvideo's is in it; {_EXPECTED}")
    return found


def check_folder(path: Path, work: Work) -> Thing:
    """Checks the files of a folder with a manifest whose purpose is not known."""
    thing = Thing("folder", path)
    work.files(thing)
    thing.advise("copy it again from where it came")
    return thing


_CHECKS: dict[str, Callable[[Path, Work], Thing]] = {
    "store": check_store,
    "model": check_model,
    "checkpoint": check_checkpoint,
    "codes": check_cache,
    "training": check_stage,
    "rounds": check_rounds,
    "report": check_report,
    "folder": check_folder,
}


def _check(place: Place, work: Work) -> Thing:
    """Checks one thing. A writer that replaces or removes it meanwhile is no damage: then it is checked again."""
    for _ in range(_TRIES):
        before = _identity(place.path)
        try:
            thing = _CHECKS[place.kind](place.path, work)
        except (InputError, OSError) as error:
            thing = Thing(place.kind, place.path)
            thing.damaged("", reason(error, place.path))
        after = _identity(place.path)
        if not thing.damage or after == before:
            return thing
        if after is None:
            break
    gone = Thing(place.kind, place.path)
    gone.note("", "was replaced or removed while it was checked: another process writes here")
    return gone


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _repaired(place: Place, before: Thing, work: Work) -> Thing:
    """Repairs a store and checks it again. What cannot be repaired stays damaged."""
    if writer := living_writer(place.path):
        before.note("", f"not repaired: {writer}")
        return before
    try:
        done: Repair = repair_store(place.path, work)
    except (InputError, OSError) as error:
        before.note("", f"not repaired: {reason(error, place.path)}")
        return before
    thing = _check(place, work)
    if done.lines or done.episodes:
        numbers = ", ".join(map(str, done.episodes)) or "that could not be read"
        thing.note("", f"repaired: {done.lines} line(s) left out, episode(s) {numbers}", done.remedy)
    return thing
