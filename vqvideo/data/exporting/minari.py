"""Minari datasets: HDF5 with T+1 observations for T actions, as Farama's Minari 0.5.4 lays it out. Nothing is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.episode import CHUNK
from vqvideo.data.exporting import Exporter, Outgoing, facts, require
from vqvideo.data.index import StoreMeta
from vqvideo.spaces import ActionSpace

VERSION = "0.5.4"
"""Of the layout: the first that knows frames that are not JPEG."""


class Minari(Exporter):
    """`data/main_data.hdf5` and `data/metadata.json`; frames are the observations, to the bit."""

    read_with = 'minari.MinariDataset("{folder}/data")'

    def __init__(self, folder: Path, meta: StoreMeta, lossless: bool) -> None:
        super().__init__(folder, meta, lossless)
        require("h5py")
        import h5py

        (folder / "data").mkdir()
        # In the order in which they are made, and not that of their names: episode_10 follows episode_9.
        self._file = self.open_files.enter_context(h5py.File(folder / "data" / "main_data.hdf5", "w", track_order=True))
        self._episodes = self._steps = 0

    def add(self, episode: Outgoing) -> None:
        group, steps = self._file.create_group(f"episode_{self._episodes}"), episode.steps
        length = len(steps.rewards)
        group.attrs.update({"id": self._episodes, "seed": episode.seed, "total_steps": length, "split": episode.split})
        shape = (length + 1, *self.meta.frame_size, 3)
        observations = group.create_dataset(
            "observations", shape, np.uint8, chunks=(min(CHUNK, length + 1), *shape[1:]), compression="gzip"
        )
        count = 0
        for frames in episode.frames:
            observations[count : count + len(frames)] = frames
            count += len(frames)
        for name, values in native_arrays(self.meta.action_space, steps.actions, "actions"):
            group.create_dataset(name, data=values)
        for name, values in (
            ("rewards", steps.rewards),
            ("terminations", steps.terminated),
            ("truncations", steps.truncated),
        ):
            group.create_dataset(name, data=values)
        self._episodes, self._steps = self._episodes + 1, self._steps + length

    def finish(self) -> None:
        self.open_files.close()
        data = self.folder / "data"
        h, w = self.meta.frame_size
        frames = {"type": "Box", "dtype": "uint8", "shape": [h, w, 3]}
        frames |= {end: np.full((h, w, 3), bound).tolist() for end, bound in (("low", 0), ("high", 255))}
        metadata: dict[str, Any] = {
            "total_episodes": self._episodes,
            "total_steps": self._steps,
            "data_format": "hdf5",
            "jpeg_encoding": False,
            "observation_space": json.dumps(frames),
            "action_space": json.dumps(serialized(self.meta.action_space.native())),
            "dataset_id": dataset_id(self.meta),
            "minari_version": VERSION,
            "algorithm_name": self.meta.policy,
            "dataset_size": round((data / "main_data.hdf5").stat().st_size / 1e6, 1),
            "vqvideo": facts(self.meta),
        }
        if self.meta.env_spec and not self.meta.imported:
            metadata["env_spec"] = self.meta.env_spec
        (data / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")


def dataset_id(meta: StoreMeta) -> str:
    """What Minari calls the dataset: CarRacing is vqvideo/CarRacing-v0."""
    name = re.sub(r"[^\w-]+", "-", meta.env_id, flags=re.ASCII).strip("-") or "store"
    return f"vqvideo/{re.sub(r'-v[0-9]+$', '', name) or 'store'}-v0"


def native_arrays(space: ActionSpace, actions: NDArray[np.float64], root: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """The arrays of flat actions (T, a) in the types and shapes of their spaces, (T, ...) each, with paths in HDF5:
    those of a Dict by key, those of a Tuple as _index_0, ...
    """
    start = 0
    for path, leaf in zip(leaf_paths(space.native(), root), space.leaves, strict=True):
        stop = start + len(leaf.columns)
        low, high = ([getattr(column, end) for column in leaf.columns] for end in ("low", "high"))
        # What a store tolerates of rounding is outside of the space for others.
        values = actions[:, start:stop].clip(low, high).astype(leaf.space.dtype)
        yield path, values.reshape(len(actions), *leaf.space.shape)
        start = stop


def leaf_paths(space: Any, path: str, element: str = "_index_{}") -> Iterator[str]:
    """Of the leaves of a Gymnasium space, in their order, below the path of all of it. `element`: of a Tuple."""
    children = getattr(space, "spaces", None)
    if children is None:
        yield path
        return
    named = children.items() if isinstance(children, dict) else ((element.format(i), c) for i, c in enumerate(children))
    for name, child in named:
        yield from leaf_paths(child, f"{path}/{name}", element)


def serialized(space: Any) -> dict[str, Any]:
    """A Gymnasium space as Minari writes it down."""
    kind = type(space).__name__
    if kind == "Dict":
        return {"type": kind, "subspaces": {key: serialized(child) for key, child in space.spaces.items()}}
    if kind == "Tuple":
        return {"type": kind, "subspaces": [serialized(child) for child in space.spaces]}
    if kind == "MultiBinary":
        return {"type": kind, "n": space.n if isinstance(space.n, int) else list(space.shape)}
    record = {"type": kind, "dtype": str(space.dtype)}
    if kind == "Discrete":
        return record | {"start": int(space.start), "n": int(space.n)}
    if kind == "MultiDiscrete":
        return record | {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
    return record | {"shape": list(space.shape), "low": space.low.tolist(), "high": space.high.tolist()}
