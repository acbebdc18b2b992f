"""MNIST and what came in its files since (Fashion-MNIST, KMNIST), as torchvision stores them: digits beside labels.

A digit is a frame and a label the action that leads to it: who presses 3 is shown some 3. So a prior that learns the
actions of such an episode learns the digits by their labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.files_below import files_called
from vqvideo.data.formats import FORMATS
from vqvideo.data.formats.idx import Idx
from vqvideo.data.formats.pictures import ArrayPictures, Sliced
from vqvideo.data.formats.rows import Leads, Pictures, RowReader, Rows
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

if TYPE_CHECKING:
    from vqvideo.data.config import ImportConfig

_IMAGES = re.compile(r"^(train|t10k)-images[-.]idx3-ubyte(\.gz)?$")
_LABELS = 10
_FPS = 2.0
"""Digits have no rate: one that the eye can follow."""
GET = FORMATS["mnist"].get
"""Nothing is downloaded unless somebody asks for it."""


class MNIST(RowReader):
    """The images for training and those for testing, a recording each. Where both are there, those for testing are held
    out and no others.
    """

    leads: Leads = "to"
    episodes: ClassVar[bool] = False

    def __init__(self, options: ImportConfig) -> None:
        super().__init__(options)
        self._images = _found(self.path)
        self.names = list(self._images)

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether there are its files, or it is missed."""
        return bool(files_called(path, _IMAGES)) if path.exists() else "mnist" in path.name.lower()

    def size_of(self, name: str) -> int:
        """Bytes of the images."""
        return self._images[name].stat().st_size

    def where(self, name: str) -> str:
        """As `RowReader`."""
        return str(self._images[name])

    def pictures(self, name: str) -> Pictures:
        """As `RowReader`."""
        images = Idx(self._images[name], 3)
        h, w = images.shape[1:]
        small = self.options.size != (h, w)
        notes = (f"frames of {h} x {w} pixels are stored in another size: --frame-size {h}x{w}",) if small else ()
        found = ArrayPictures(_Frames(images), str(images.path), _FPS, notes)
        split = "held_out" if name == "t10k" else "train"
        found.facts = replace(found.facts, split=split if "t10k" in self._images else None)
        return found

    def rows(self, name: str) -> Rows:
        """As `RowReader`: label t is that of image t."""
        labels = Idx(_labels_of(self._images[name]), 1)
        count = Idx(self._images[name], 3).shape[0]
        if labels.shape[0] != count:
            raise InputError(
                f"{labels.path}: {labels.shape[0]} labels of {count} images in {self._images[name].name}: they are not "
                f"of the same data set, or damaged. {GET}"
            )
        actions = labels.array()
        if count and actions.max() >= _LABELS:
            raise InputError(
                f"{labels.path}: label {int(actions.max())} of image {int(actions.argmax())}, expected 0 to "
                f"{_LABELS - 1}"
            )
        return Rows(actions)

    def space(self) -> ActionSpace:
        """As `RowReader`: ten labels."""
        from gymnasium import spaces

        return ActionSpace.from_gymnasium(spaces.Discrete(_LABELS))


class _Frames:
    """The images of a file, which other processes read for themselves."""

    def __init__(self, images: Idx) -> None:
        self.images, self.shape = images, images.shape

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return iter(Sliced(self.images.array()))


def _found(path: Path) -> dict[str, Path]:
    """The files of images, by "train" and "t10k". Unpacked ones go before packed ones, which torchvision leaves."""
    files = files_called(path, _IMAGES)
    if not files:
        raise InputError(
            f"{path}: no train-images-idx3-ubyte or t10k-images-idx3-ubyte in it or below, packed or not. {GET}"
        )
    folders = sorted({str(file.parent) for file in files})
    if len(folders) > 1:
        raise InputError(f"{path} holds {len(folders)} data sets, expected one: name one of {', '.join(folders[:8])}")
    named = {file.name.partition("-")[0]: file for file in sorted(files, key=lambda file: file.suffix != ".gz")}
    return {name: named[name] for name in ("train", "t10k") if name in named}


def _labels_of(images: Path) -> Path:
    """The file beside images that holds their labels, packed or not."""
    plain = images.with_name(images.name.removesuffix(".gz").replace("-images", "-labels").replace("idx3", "idx1"))
    for path in (plain, plain.with_name(f"{plain.name}.gz")):
        if path.is_file():
            return path
    raise InputError(f"{images}: no {plain.name} beside it, packed or not: the labels are missing. {GET}")
