"""One episode of RLDS: the arrays of its steps, decoded as they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from math import prod
from typing import Any

from numpy.typing import NDArray

from vqvideo.data.formats.example import Feature
from vqvideo.data.formats.tfds_features import Declared
from vqvideo.errors import InputError

FLAGS = ("is_last", "is_first", "is_terminal")
"""Of steps, and not of actions."""
_PREFIX = "steps/"
_IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG")


class Episode:
    """The arrays of the steps of an episode, by their paths in a step.

    Args:
        features: of the whole record.
        declared: what is said of the arrays, where something is.
        where: begins errors.
    """

    def __init__(self, features: Mapping[str, Feature], declared: Mapping[str, Declared], where: str) -> None:
        self.declared, self.where = declared, where
        self.features = {
            name.removeprefix(_PREFIX): feature for name, feature in features.items() if name.startswith(_PREFIX)
        }
        if not self.features:
            raise InputError(
                f"{where}: no names that begin with {_PREFIX}, found {', '.join(list(features)[:12])}; expected an "
                "episode of RLDS in each record"
            )

    @cached_property
    def images(self) -> list[str]:
        """What holds an encoded image per step."""
        return [name for name, feature in self.features.items() if feature.is_bytes and self._is_image(name)]

    def _is_image(self, name: str) -> bool:
        if name in self.declared:
            return self.declared[name].image
        return bytes(self.features[name].items()[0][:4]).startswith(_IMAGE_STARTS)

    @property
    def cameras(self) -> list[str]:
        """Those of the images that are pictures in colour, of what is observed if there are some."""
        colour = [name for name in self.images if name not in self.declared or self.declared[name].colour]
        return [name for name in colour if name.split("/")[0] == "observation"] or colour

    def count(self, name: str) -> int:
        """How many images a camera has."""
        return len(self.features[name].items())

    @cached_property
    def steps(self) -> int:
        """How many there are."""
        flags = [self._numbers(name) for name in FLAGS if name in self.features and self.features[name].is_numbers]
        return len(flags[0]) if flags else max(map(self.count, self.images), default=0)

    @cached_property
    def ends_without_action(self) -> bool:
        """Whether the last step only holds an observation, as it should; not if the recording was cut off."""
        flags = [name for name in ("is_last", "is_terminal") if name in self.names]
        return bool(flags and self.column(flags[0])[-1:].any())

    @cached_property
    def names(self) -> list[str]:
        """What holds numbers."""
        return [name for name, feature in self.features.items() if feature.is_numbers]

    def said(self, name: str) -> Declared:
        """What is said of an array; nothing of one that is not declared."""
        return self.declared.get(name, Declared())

    def column(self, name: str) -> NDArray[Any]:
        """An array (steps, ...). InputError for another number of values."""
        values, said = self._numbers(name), self.said(name)
        shape = said.shape
        if shape is None or min(shape, default=0) < 0:
            each = len(values) // self.steps if self.steps else 0
            shape = () if each == 1 else (each,)
        if len(values) != self.steps * prod(shape):
            raise InputError(
                f"{self.where}: {name} has {len(values)} numbers, expected {self.steps} steps of {shape or 'one each'}"
            )
        column = values.reshape(self.steps, *shape)
        return column.astype(bool) if said.dtype == "bool" else column

    def _numbers(self, name: str) -> NDArray[Any]:
        return self.features[name].numbers(f"{self.where}: {name}")


class Table(Mapping[str, NDArray[Any]]):
    """The columns of an episode, of which only those are decoded that are looked at."""

    def __init__(self, episode: Episode) -> None:
        self.episode = episode

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.episode.column(name)

    def __iter__(self) -> Iterator[str]:
        return iter([*self.episode.names, *self.episode.images])

    def __len__(self) -> int:
        return len(self.episode.names) + len(self.episode.images)
