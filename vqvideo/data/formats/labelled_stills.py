"""Pictures with a label each: a recording is a file of them, and a label the action that leads to its picture."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.formats.pictures import ArrayPictures, Blocks
from vqvideo.data.formats.rows import Leads, Pictures, RowReader, Rows
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

if TYPE_CHECKING:
    from vqvideo.data.config import ImportConfig

_FPS = 2.0
"""Such pictures have no rate: one that the eye can follow."""
LABELS = 10


class LabelledStills(RowReader):
    """Files of pictures by name. Where the one for testing is among others, it is held out and no others.

    Args:
        options: of the import.
        files: by the names of the recordings.
        test: which of them is for testing.
    """

    leads: Leads = "to"
    episodes: ClassVar[bool] = False

    def __init__(self, options: ImportConfig, files: Mapping[str, Path], test: str) -> None:
        super().__init__(options)
        self.files, self.test, self.names = files, test, list(files)

    @abstractmethod
    def blocks(self, path: Path) -> Blocks:
        """The pictures of a file."""

    @abstractmethod
    def labels(self, path: Path) -> tuple[Path, NDArray[Any]]:
        """The labels (n,) of the pictures of a file, and the file that holds them."""

    def size_of(self, name: str) -> int:
        """Bytes of the file."""
        return self.files[name].stat().st_size

    def where(self, name: str) -> str:
        """As `RowReader`."""
        return str(self.files[name])

    def pictures(self, name: str) -> Pictures:
        """As `RowReader`."""
        found = ArrayPictures(self.blocks(self.files[name]), self.where(name), _FPS)
        h, w = found.facts.size
        said = f"frames of {h} x {w} pixels are stored in another size: --frame-size {h}x{w}"
        split = "held_out" if name == self.test else "train"
        found.facts = replace(
            found.facts,
            notes=() if self.options.size == (h, w) else (said,),
            split=split if {self.test} < set(self.files) else None,
        )
        return found

    def rows(self, name: str) -> Rows:
        """As `RowReader`: label t is that of picture t."""
        path, labels = self.labels(self.files[name])
        wrong = np.flatnonzero((labels < 0) | (labels >= LABELS))
        if len(wrong):
            raise InputError(f"{path}: label {int(labels[wrong[0]])} of picture {wrong[0]}, expected 0 to {LABELS - 1}")
        return Rows(labels)

    def space(self) -> ActionSpace:
        """As `RowReader`: ten labels."""
        from gymnasium import spaces

        return ActionSpace.from_gymnasium(spaces.Discrete(LABELS))
