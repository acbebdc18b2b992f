"""Worlds that come with vqvideo, and real held-out clips for each to start from.

    from vqvideo import WorldModel
    from vqvideo.pretrained import start_clips

    world = WorldModel.from_pretrained("CarRacing")
    frames, actions, rewards = start_clips("CarRacing")

A shipped world is a folder here: a model folder with a store of clips, `starts/`, in it. The folders named in the
environment variable VQVIDEO_WORLDS (separated as in PATH) are searched for worlds before this one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from vqvideo.data.clips import StartClips, to_video
from vqvideo.data.store import Store
from vqvideo.errors import InputError, suggest

STARTS = "starts"
"""Folder of the start clips inside that of a world."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")


def worlds() -> dict[str, Path]:
    """Names and folders of the shipped worlds."""
    found: dict[str, Path] = {}
    for place in _search_path():
        for config in sorted(place.glob("*/config.json")):
            if _NAME.fullmatch(config.parent.name):
                found.setdefault(config.parent.name, config.parent)
    return found


def find(name: str) -> Path | None:
    """The folder of the shipped world called `name`, None if there is none: CarRacing and car_racing are one name."""
    if not _NAME.fullmatch(name):
        return None
    folders = {_key(known): folder for known, folder in reversed(worlds().items())}
    return folders.get(_key(name))


def hint(name: str) -> str:
    """What to take instead of a name that no shipped world has; empty if no world is shipped."""
    return suggest(name.lower(), worlds())


def start_store(name: str) -> Store:
    """The start clips of a shipped world as a store, whose episodes are all held out.

    Raises:
        InputError: no world of that name is shipped, or its clips are damaged.
    """
    folder = find(name)
    if folder is None:
        raise InputError(f"no world called {name!r} is shipped: {hint(name) or 'there is none at all'}")
    return Store.open(folder / STARTS)


def start_clips(name: str, length: int | None = None) -> StartClips:
    """The beginnings of all start clips of a shipped world.

    Args:
        name: of the world.
        length: t, frames of each; by default as many as the shortest clip has.

    Raises:
        InputError: no world of that name is shipped, its clips are damaged, or none is that long.
    """
    store = start_store(name)
    length = min(entry.length for entry in store.entries) + 1 if length is None else length
    long_enough = [entry for entry in store.entries if 1 <= length <= entry.length + 1]
    if not long_enough:
        longest = max(entry.length for entry in store.entries) + 1
        raise InputError(f"no start clip of {name} has {length} frames, expected 1 to {longest}")
    readers = [store.reader(entry) for entry in long_enough]
    return StartClips(
        torch.stack([to_video(reader.frames(0, length)) for reader in readers]).contiguous(),
        torch.stack([torch.from_numpy(reader.steps.actions[: length - 1]).float() for reader in readers]),
        torch.stack([torch.from_numpy(reader.steps.rewards[: length - 1]) for reader in readers]),
    )


def _search_path() -> list[Path]:
    named = [Path(place) for place in os.environ.get("VQVIDEO_WORLDS", "").split(os.pathsep) if place]
    return [*named, Path(__file__).parent]


def _key(name: str) -> str:
    return re.sub(r"[_-]", "", name.lower())
