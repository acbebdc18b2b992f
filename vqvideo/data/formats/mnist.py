"""MNIST and what came in its files since (Fashion-MNIST, KMNIST), as torchvision stores them: digits beside labels.

A digit is a frame and a label the action that leads to it: who presses 3 is shown some 3. So a prior that learns the
actions of such an episode learns the digits by their labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.files_below import files_called
from vqvideo.data.formats import FORMATS
from vqvideo.data.formats.idx import Idx
from vqvideo.data.formats.labelled_stills import LabelledStills
from vqvideo.data.formats.pictures import Blocks, Sliced
from vqvideo.errors import InputError

if TYPE_CHECKING:
    from vqvideo.data.config import ImportConfig

_IMAGES = re.compile(r"^(train|t10k)-images[-.]idx3-ubyte(\.gz)?$")
GET = FORMATS["mnist"].get
"""Nothing is downloaded unless somebody asks for it."""


class MNIST(LabelledStills):
    """The images for training and those for testing, a recording each. Where both are there, those for testing are held
    out and no others.
    """

    def __init__(self, options: ImportConfig) -> None:
        super().__init__(options, _found(options.source), "t10k")

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether there are its files, or it is missed."""
        return bool(files_called(path, _IMAGES)) if path.exists() else "mnist" in path.name.lower()

    def blocks(self, path: Path) -> Blocks:
        """As `LabelledStills`."""
        return _Frames(Idx(path, 3))

    def labels(self, path: Path) -> tuple[Path, NDArray[Any]]:
        """As `LabelledStills`."""
        labels, count = Idx(_labels_of(path), 1), Idx(path, 3).shape[0]
        if labels.shape[0] != count:
            raise InputError(
                f"{labels.path}: {labels.shape[0]} labels of {count} images in {path.name}: they are not of the same "
                f"data set, or damaged. {GET}"
            )
        return labels.path, labels.array()


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
