"""Datasets of Minari in HDF5: T+1 observations for T actions, raw or as JPEG, and the space of the actions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from vqvideo.data.formats.hdf5 import HDF5
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace
from vqvideo.storage.files import read_small

FILE, METADATA = "main_data.hdf5", "metadata.json"


class Minari(HDF5):
    """The episodes of a dataset, given by its folder, the one of its data or its file."""

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether its file lies there."""
        return _file(path) is not None

    def files(self) -> list[Path]:
        """As `HDF5`."""
        found = _file(self.path)
        if found is None:
            raise InputError(
                f"{self.path}: no {FILE} in it, nor in its folder data, expected a dataset of Minari in HDF5"
            )
        return [found]

    def space(self) -> ActionSpace | None:
        """The one that the metadata tell."""
        path = self.files()[0].with_name(METADATA)
        if not path.exists() or "actions" in self.options.columns:
            return None
        try:
            said = json.loads(read_small(path))["action_space"]
            return ActionSpace.from_gymnasium(_space(json.loads(said) if isinstance(said, str) else said))
        except (ValueError, KeyError, TypeError, AssertionError, RecursionError, ArithmeticError) as error:
            raise InputError(
                f"{path}: no action_space that can be used ({error!r:.200}). To find it by the actions: "
                "--columns actions=actions"
            ) from error


def _file(path: Path) -> Path | None:
    places = [path / FILE, path / "data" / FILE, *([path] if path.name == FILE else [])]
    return next((place for place in places if place.is_file()), None)


def _space(said: dict[str, Any]) -> Any:
    """A space of Gymnasium of what the metadata say."""
    from gymnasium import spaces

    kind = said["type"]
    if kind == "Dict":
        return spaces.Dict({name: _space(one) for name, one in said["subspaces"].items()})
    if kind == "Tuple":
        return spaces.Tuple([_space(one) for one in said["subspaces"]])
    if kind == "Discrete":
        return spaces.Discrete(said["n"], start=said.get("start", 0))
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(said["nvec"], start=said.get("start"))
    if kind == "MultiBinary":
        return spaces.MultiBinary(said["n"])
    if kind != "Box":
        raise ValueError(f"a space of type {kind!r}")
    low, high = (np.array(said[end], said["dtype"]) for end in ("low", "high"))
    return spaces.Box(low, high, tuple(said["shape"]), np.dtype(said["dtype"]).type)
