"""Whether a checkpoint may be continued by the run that asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqvideo.errors import InputError


def check_same_run(progress: Mapping[str, Any], settings: Mapping[str, Any], run: Path) -> None:
    """Raises InputError if a checkpoint was written with other settings than those of now, or is none of ours.

    Args:
        progress: what the checkpoint records.
        settings: of now, by dotted name.
        run: folder of the run, for the message.
    """
    if not {"settings", "step", "seconds", "world"} <= progress.keys():
        raise InputError(f"{run}: its checkpoint lacks settings, step, seconds or world: it is not ours")
    before = progress["settings"]
    keys = [*settings, *(key for key in before if key not in settings)]
    different = [key for key in keys if before.get(key) != settings.get(key)]
    if different:
        changed = ", ".join(f"{key} {before.get(key)!r} -> {settings.get(key)!r}" for key in different)
        raise InputError(
            f"{run} was trained with other settings: {changed}. "
            f"Resume with the same ones, start a new run with --name, or remove {run}"
        )


def check_same_world(progress: Mapping[str, Any], processes: int, run: Path) -> None:
    """Raises InputError if a checkpoint was written by another number of processes."""
    if progress["world"] != processes:
        raise InputError(
            f"{run} was trained by {progress['world']} process(es), now there are {processes}: resume with the same "
            "number, or add --any-world-size: the same samples, but other rounding and noise"
        )
