"""Ways out of a store: episodes as other tools want them, a format each.

A format gets the episodes one after the other and lays them out in a folder of its own; that the folder appears
complete or not at all is the same for all formats, and ensured in `vqvideo.data.export`. A new format is one file here
and its line in `FORMATS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.episode import Steps
from vqvideo.data.index import StoreMeta
from vqvideo.errors import InputError, MissingExtraError, suggest


class Outgoing(NamedTuple):
    """An episode on its way out."""

    frames: Iterable[NDArray[np.uint8]]
    """T+1 of them in blocks (n, h, w, 3) uint8 RGB, decoded as they are asked for."""
    steps: Steps
    """What happened between them."""
    seed: int
    """What the environment was reset with."""
    split: str
    """"train" or "held_out"."""


class Exporter(ABC):
    """Writes episodes in one format; used with `with`.

    Args:
        folder: an empty folder.
        meta: what all episodes have in common.
        lossless: whether frames must be kept to the bit.
    """

    read_with: ClassVar[str]
    """How the folder is opened by those whose format it is; `{folder}` stands for it."""

    def __init__(self, folder: Path, meta: StoreMeta, lossless: bool) -> None:
        self.folder, self.meta, self.lossless = folder, meta, lossless
        self.open_files = ExitStack()
        """What has to be closed in the end, in good order or not."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.open_files.close()

    @abstractmethod
    def add(self, episode: Outgoing) -> None:
        """Writes an episode. InputError where the format cannot hold it."""

    @abstractmethod
    def finish(self) -> None:
        """Closes the files, and writes what describes all of them."""


class Format(NamedTuple):
    """A format that can be written."""

    module: str
    """In this package."""
    exporter: str
    """The class there."""


FORMATS = {
    "lerobot": Format("lerobot", "LeRobot"),
    "minari": Format("minari", "Minari"),
    "mp4": Format("mp4", "FilmsAndTables"),
}
"""By name."""


def exporter_class(name: str) -> type[Exporter]:
    """What writes a format. InputError for a name that is none."""
    if name not in FORMATS:
        raise InputError(f"--to {name}: no such format; {suggest(name, FORMATS)}")
    return getattr(import_module(f"{__name__}.{FORMATS[name].module}"), FORMATS[name].exporter)


def require(module: str) -> None:
    """Raises MissingExtraError unless a module that writes a format is installed."""
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error, "formats") from error


def facts(meta: StoreMeta) -> dict[str, Any]:
    """What goes along in every format, as JSON values: enough to make sense of the numbers."""
    return {
        "environment": meta.env_id,
        "imported_from": meta.imported,
        "policy": meta.policy,
        "frames_per_second": meta.fps,
        "frame_height_and_width": list(meta.frame_size),
        "action_repeat": meta.action_repeat,
        "action_space": meta.action_space.to_json(),
        "missing": list(meta.missing),
    }


def column_names(meta: StoreMeta) -> list[str]:
    """A name for each column of the flat actions: action_0, ..., or of nested spaces action_arm_0, ..."""
    names = []
    for leaf in meta.action_space.leaves:
        stem = "action_" + (leaf.name.replace("/", "_") + "_" if leaf.name else "")
        names += [f"{stem}{number}" for number in range(len(leaf.columns))]
    return names
