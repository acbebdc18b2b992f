"""Whether a lost episode can be recorded again, and how: it is a function of the run's seed and its number."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from vqvideo.data.index import EpisodeEntry, StoreMeta
from vqvideo.data.playing import episode_seeds
from vqvideo.errors import InputError
from vqvideo.storage import files

COPY = "restore it from a copy"


def how_to_record(folder: Path, meta: StoreMeta, entries: Collection[EpisodeEntry], last: int) -> str:
    """The command that records the missing ones of the episodes 0 .. `last`, as far as the store remembers it."""
    h, w = meta.frame_size
    cut = [entry.length for entry in entries if not entry.terminated]
    steps = str(max(cut)) if cut else "AS_BEFORE"
    if h != w:
        return "record again with the command that recorded the store"
    settings = {
        "env": meta.env_id,
        "out": folder,
        "episodes": last + 1,
        "steps": steps,
        "frame-size": h,
        "held-out-every": meta.held_out_every,
        "policy": meta.policy,
        "action-repeat": meta.action_repeat,
        "skip-first": meta.skip_first,
        "seed": meta.seed,
    }
    # Quoted: a stranger's store must not put words of its own into somebody's shell.
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return shlex.join(["python", "scripts/record.py", *flags])


def lost_for_good(folder: Path, meta: StoreMeta, entries: Iterable[EpisodeEntry]) -> list[int]:
    """Numbers of the episodes among `entries` that no command records again: an agent played them, or they were cut
    from others.
    """
    played = _played_by_agents(folder)
    return [
        entry.index
        for entry in entries
        if entry.index in played or episode_seeds(meta.seed, entry.index).env != entry.seed
    ]


def _played_by_agents(folder: Path) -> set[int]:
    """The episodes that the log of an improvement run beside the store names as played by an agent."""
    file = folder.parent / "rounds.json"
    try:
        rounds: Any = files.parse_json(files.read_small(file), str(file))["rounds"]
        spans = [(one["episodes"]["first"], one["episodes"]["last"]) for one in rounds[1:] if "episodes" in one]
        return {index for first, last in spans for index in range(int(first), min(int(last), 10**6) + 1)}
    except (InputError, OSError, KeyError, TypeError, ValueError):
        return set()
