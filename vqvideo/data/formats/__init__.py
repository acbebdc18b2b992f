"""Recordings that others made, by the format in which they lie on a disk.

A reader finds the recordings of its format and gives their moments in order, as they are: how large frames are stored,
which of them are left out and where episodes are cut is the same for all formats, and decided in
`vqvideo.data.importing`. A new format is one file here and its line in `FORMATS`.

`RowReader` does what formats with actions have in common: counting, alignment, the space of the actions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vqvideo.errors import InputError, suggest
from vqvideo.spaces import ActionSpace

if TYPE_CHECKING:
    from vqvideo.data.config import ImportConfig


@dataclass(frozen=True)
class Facts:
    """What can be said of a recording before its frames are decoded."""

    frames: int
    """How many it has."""
    fps: float | None
    """Frames per second; None where nothing says it."""
    size: tuple[int, int]
    """(h, w) in pixels, upright."""
    notes: tuple[str, ...] = ()
    """What a user should know of it, such as a variable frame rate."""
    split: str | None = None
    """"train" or "held_out" where its authors say it; None: every n-th episode is held out."""


class Moment(NamedTuple):
    """A frame, and what led to it from the one before."""

    frame: NDArray[np.uint8]
    """(h, w, 3) uint8 RGB, upright."""
    action: Sequence[float] | NDArray[np.float64] = ()
    """The flat action; of the first moment it does not count."""
    reward: float = 0.0
    """The reward on the way."""
    terminated: bool = False
    """Whether the environment ended here."""


class Recording(Protocol):
    """One recording."""

    facts: Facts
    ends: Sequence[int] | NDArray[np.int64]
    """Numbers, in order, of the moments in which the environment ended."""

    def moments(self, first: int = 0) -> Iterator[Moment]:
        """The moments in order, from the one with number `first` on, decoded one by one. InputError where that
        fails.
        """
        ...


class Reader(Protocol):
    """The recordings of one format that the options of an import name. Made of those options; InputError if there is
    none.
    """

    def __init__(self, options: ImportConfig) -> None: ...

    action_space: ActionSpace
    """Of all of them."""
    names: Sequence[str]
    """By which errors and the store know them, in the order in which they are imported."""
    episodes: bool
    """Whether a recording is an episode, to be kept whole; else it is cut as is convenient."""
    missing: tuple[str, ...]
    """What is not known of any step: "rewards", "ends"."""
    notes: tuple[str, ...]
    """What a user should know of all of them."""

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether a path looks as if it held this format."""
        ...

    def size_of(self, name: str) -> int:
        """Bytes on the disk, by which a recording is known again."""
        ...

    def open(self, name: str) -> Recording:
        """Looks into a recording. InputError, with what was found, for one that cannot be read."""
        ...


class Format(NamedTuple):
    """A format that can be imported."""

    module: str
    """In this package."""
    reader: str
    """The class of its reader there."""
    what: str
    """What it is, for the help."""
    get: str = ""
    """How to get what is common, for whom it is missing."""


FORMATS = {
    "lerobot": Format("lerobot", "LeRobot", "datasets of LeRobot v2.0, v2.1 and v3.0, in films or images"),
    "stable-worldmodel": Format(
        "stable_worldmodel", "StableWorldModel", "data sets of stable-worldmodel in HDF5, images or films, not Lance"
    ),
    "vpt": Format("annotated_videos", "VPT", "x.mp4 and x.jsonl of keyboard and mouse, as VPT recorded Minecraft"),
    "annotated-videos": Format(
        "annotated_videos", "AnnotatedVideos", "x.mp4 and x.csv, .jsonl, .npz or .npy of actions, a row per frame"
    ),
    "minari": Format("minari", "Minari", "datasets of Minari in HDF5 or Arrow with pictures"),
    "rlds": Format("rlds", "RLDS", "datasets of RLDS (Open X-Embodiment) as TFDS stores them: TFRecord, ArrayRecord"),
    "array-record": Format(
        "raw_videos", "RawVideos", "ArrayRecord of raw videos and actions, as jasmine and jafar write it"
    ),
    "mnist": Format(
        "mnist",
        "MNIST",
        "idx files of MNIST, Fashion-MNIST, KMNIST: labels are the actions",
        """Download it: python -c "from torchvision.datasets import MNIST; MNIST('data', download=True)"; then it is \
in data/MNIST/raw""",
    ),
    "cifar": Format(
        "cifar",
        "CIFAR",
        "batches of CIFAR-10, binary or for Python: labels are the actions",
        """Download it: python -c "from torchvision.datasets import CIFAR10; CIFAR10('data', download=True)"; then it \
is in data/cifar-10-batches-py""",
    ),
    "hdf5": Format(
        "hdf5",
        "HDF5",
        "HDF5 of robomimic, D4RL, Dreamer, CS:GO, or of any names with --columns",
    ),
    "arrays": Format("arrays", "Arrays", "npz files, or folders of npy files, with frames, actions, rewards"),
    "videos": Format("videos", "Videos", "films of any kind that FFmpeg reads, without actions and rewards"),
}
"""By name. The first that recognises a folder reads it, if nobody says what it is."""


def reader_class(name: str) -> type[Reader]:
    """The reader of a format by its name. InputError for a name that is none."""
    if name not in FORMATS:
        raise InputError(f"--from {name}: no such format; {suggest(name, FORMATS) or 'known: ' + ', '.join(FORMATS)}")
    return getattr(import_module(f"{__name__}.{FORMATS[name].module}"), FORMATS[name].reader)


def format_of(path: Path) -> str:
    """The name of the format that a path looks like; videos if it looks like none."""
    return next((name for name in FORMATS if reader_class(name).recognises(path)), "videos")


def reader_of(options: ImportConfig) -> tuple[str, Reader]:
    """The format of what an import names, and its recordings.

    Raises:
        InputError: nothing is there.
    """
    name = options.format or format_of(options.source)
    get = FORMATS[name].get if name in FORMATS else ""
    if not options.source.exists() and (options.format or get):
        raise InputError(f"{options.source}: no such file or folder{get and f'. {get}'}")
    return name, reader_class(name)(options)
