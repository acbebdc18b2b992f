"""Datasets of Minari in HDF5 or Arrow: T+1 observations for T actions, raw or as JPEG, and the space of the actions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqvideo.data.exporting.minari import leaf_paths
from vqvideo.data.formats.contained import Container
from vqvideo.data.formats.hdf5 import HDF5
from vqvideo.data.formats.minari_arrow import ArrowEpisode
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace
from vqvideo.storage.files import read_small

if TYPE_CHECKING:
    from vqvideo.data.config import ImportConfig

FILE, METADATA = "main_data.hdf5", "metadata.json"
_MAX_METADATA = 2**26
"""Bytes: bounds of each pixel are in it."""


class Minari(HDF5):
    """The episodes of a dataset, given by its folder, the one of its data or its file.

    Rows lead from their frames. What `vqvideo` exported comes back equal: the metadata tell how fast it is, and what
    is missing.
    """

    def __init__(self, options: ImportConfig) -> None:
        self.data = _data(options.source)
        super().__init__(options)

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether its data lie there."""
        return _data(path) is not None

    def files(self) -> list[Path]:
        """As `HDF5`."""
        if self.data is None:
            raise InputError(
                f"{self.path}: neither {FILE} nor folders of episodes with {METADATA}, there or in data, expected a "
                "dataset of Minari"
            )
        return [self.data / FILE]

    def containers(self) -> Iterator[tuple[str, Callable[[], Container]]]:
        """As `ContainedReader`."""
        if not self._arrow:
            yield from super().containers()
            return
        assert self.data is not None
        shapes = dict(_shapes(self._said("observation_space"), "observations"))
        for folder in _episodes(self.data):
            yield f"episode_{folder.name}", lambda folder=folder: ArrowEpisode(folder, shapes)  # type: ignore[misc]

    def fps(self, container: Container) -> float | None:
        """As `ContainedReader`."""
        return container.fps or self._rate

    def space(self) -> ActionSpace | None:
        """The one that the metadata tell."""
        return None if "actions" in self.options.columns else self._space

    @property
    def asked(self) -> dict[str, Any]:
        """As `ContainedReader`: actions are in the order of their space, and zeros that stand for nothing are none."""
        ours = self._said("vqvideo")
        missing = ours.get("missing") if isinstance(ours, dict) else None
        roles: dict[str, Any] = {role: None for role in ("rewards", "ends") if role in (missing or ())}
        if self._space is not None:
            element = "{}" if self._arrow else "_index_{}"
            roles["actions"] = list(leaf_paths(self._space.native(), "actions", element))
        return roles | super().asked

    @property
    def _arrow(self) -> bool:
        return self.data is not None and not (self.data / FILE).is_file()

    @cached_property
    def _metadata(self) -> dict[str, Any]:
        path = self._metadata_path
        if not path.exists():
            return {}
        try:
            said = json.loads(read_small(path, _MAX_METADATA))
            return said if isinstance(said, dict) else {}
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: no metadata that can be read ({error!r:.200})") from error

    @property
    def _metadata_path(self) -> Path:
        assert self.data is not None
        return self.data / METADATA

    def _said(self, name: str) -> Any:
        """What the metadata say; JSON in text is read. {} for what they do not say."""
        said = self._metadata.get(name) or {}
        with suppress(ValueError, RecursionError):
            return json.loads(said) if isinstance(said, str) else said
        return {}

    @cached_property
    def _space(self) -> ActionSpace | None:
        if "actions" in self.options.columns or not self._metadata:
            return None
        try:
            return ActionSpace.from_gymnasium(_space(self._said("action_space")))
        except (ValueError, KeyError, TypeError, AssertionError, RecursionError, ArithmeticError) as error:
            raise InputError(
                f"{self._metadata_path}: no action_space that can be used ({error!r:.200}). To find it by the actions: "
                "--columns actions=actions"
            ) from error

    @cached_property
    def _rate(self) -> float | None:
        """Frames per second, as `vqvideo` or the environment says."""
        spec = self._said("env_spec")
        places = [(self._said("vqvideo"), "frames_per_second"), (self._metadata, "render_fps")]
        places += [(spec.get(name), "render_fps") for name in ("kwargs", "metadata") if isinstance(spec, dict)]
        found = (place[name] for place, name in places if isinstance(place, dict) and name in place)
        rates = (rate for rate in found if isinstance(rate, int | float) and not isinstance(rate, bool))
        return next((float(rate) for rate in rates if isfinite(rate) and rate > 0), None)


def _data(path: Path) -> Path | None:
    """The folder of the data of a dataset."""
    places = [path, path / "data", *([path.parent] if path.name == FILE else [])]
    return next((place for place in places if (place / FILE).is_file() or _episodes(place)), None)


def _episodes(folder: Path) -> list[Path]:
    """Those that are folders of their own."""
    if not (folder / METADATA).is_file():
        return []
    numbered = [place for place in folder.iterdir() if place.name.isdecimal() and place.is_dir()]
    return sorted((place for place in numbered if any(place.glob("part-*"))), key=lambda place: int(place.name))


def _shapes(said: Any, path: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The shapes of arrays in a space, by their paths."""
    inside = said.get("subspaces", ()) if isinstance(said, dict) else ()
    for key, child in inside.items() if isinstance(inside, dict) else enumerate(inside):
        yield from _shapes(child, f"{path}/{key}")
    shape = said.get("shape") if isinstance(said, dict) else None
    if isinstance(shape, list) and all(isinstance(side, int) and side > 0 for side in shape):
        yield path, tuple(shape)


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
