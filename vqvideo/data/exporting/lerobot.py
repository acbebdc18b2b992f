"""LeRobot datasets v3.0: rows of numbers in Parquet, frames in films or, without loss, as PNG among the rows.

A row is a frame. An episode of T actions has T+1 frames and so T+1 rows, of which the last one, `is_last`, shows where
the last action led: its own action repeats that one and counts for nothing, its reward is 0. Who leaves out the last
action of each episode has exactly what the store held. `next.done` says that the environment terminated.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.episode import Steps
from vqvideo.data.exporting import Exporter, Outgoing, facts, require
from vqvideo.data.exporting.lerobot_features import FRAMES, LAST, described, features, rate
from vqvideo.data.exporting.lerobot_files import (
    CHUNK_FILES,
    DATA,
    DATA_MB,
    VIDEO_MB,
    VIDEOS,
    FilmFrames,
    PictureFrames,
    Rows,
)
from vqvideo.data.exporting.lerobot_stats import Stats, of_rows, together
from vqvideo.data.index import StoreMeta

VERSION = "v3.0"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"

logger = logging.getLogger(__name__)


class LeRobot(Exporter):
    """`meta/`, `data/` and, of frames in films, `videos/`. What LeRobot has no place for is in `meta/vqvideo.json`."""

    read_with = 'LeRobotDataset("vqvideo/store", root="{folder}")'

    def __init__(self, folder: Path, meta: StoreMeta, lossless: bool) -> None:
        super().__init__(folder, meta, lossless)
        require("pyarrow")
        self._frames = PictureFrames() if lossless else FilmFrames(folder, meta)
        self._rows = Rows(folder, meta, pictures=lossless)
        self._records: list[dict[str, Any]] = []
        self._stats: list[dict[str, Stats]] = []
        self._rounding = 0.0
        self.open_files.callback(self._frames.close)
        self.open_files.callback(self._rows.close)

    def add(self, episode: Outgoing) -> None:
        frames, columns = self._frames.take(episode.frames), self._columns(episode.steps)
        place = self._rows.add(columns, frames.pictures)
        index = {"episode_index": len(self._records), "tasks": [self.meta.env_id], "length": len(columns["index"])}
        self._records.append(index | place | frames.record)
        self._stats.append({FRAMES: frames.stats} | {name: of_rows(values) for name, values in columns.items()})

    def _columns(self, steps: Steps) -> dict[str, NDArray[Any]]:
        """All columns of an episode but its frames, (T+1, a) each."""
        count = len(steps.rewards) + 1
        frame = np.arange(count)
        values = {
            "action": np.concatenate([steps.actions, steps.actions[-1:]]),
            "next.reward": np.append(steps.rewards, 0),
            "next.done": np.append(steps.terminated, steps.terminated[-1]),
            "next.truncated": np.append(steps.truncated, steps.truncated[-1]),
            LAST: frame == count - 1,
            "timestamp": frame / self.meta.fps,
            "frame_index": frame,
            "episode_index": np.full(count, len(self._records)),
            "index": self._rows.count + frame,
            "task_index": np.zeros(count),
        }
        rounded = np.abs(steps.actions.astype(np.float32) - steps.actions).max(initial=0)
        self._rounding = max(self._rounding, float(rounded))
        return {
            name: values[name].reshape(count, feature.length).astype(feature.dtype)
            for name, feature in features(self.meta).items()
        }

    def finish(self) -> None:
        self.open_files.close()
        if self._rounding:
            logger.warning("actions are float32 in LeRobot's datasets: rounded by up to %.2g", self._rounding)
        stats = {name: together([one[name] for one in self._stats]) for name in self._stats[0]}
        self._write("stats", {name: {key: value.tolist() for key, value in one.items()} for name, one in stats.items()})
        self._write(
            "vqvideo", facts(self.meta) | {"last_rows": f"{LAST}: a frame without an action and a reward of its own"}
        )
        self._write("info", self._info())
        _write_tasks(self.folder / "meta" / "tasks.parquet", self.meta.env_id)
        _write_records(self.folder / EPISODES, self._records, self._stats)

    def _info(self) -> dict[str, Any]:
        count = len(self._records)
        return {
            "codebase_version": VERSION,
            "robot_type": None,
            "total_episodes": count,
            "total_frames": self._rows.count,
            "total_tasks": 1,
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": rate(self.meta),
            "splits": {"train": f"0:{count}"},
            "data_path": DATA,
            "video_path": None if self.lossless else VIDEOS,
            "features": described(self.meta, self._frames.encoding),
        }

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        path = self.folder / "meta" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value, indent=4) + "\n", encoding="utf-8")


def _write_tasks(path: Path, task: str) -> None:
    """A table of pandas whose index are the tasks."""
    import pyarrow
    from pyarrow import parquet

    index = "__index_level_0__"
    columns = [
        {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        for name, field, kind, numpy in (
            ("task_index", "task_index", "int64", "int64"),
            (None, index, "unicode", "object"),
        )
    ]
    theirs = {"index_columns": [index], "column_indexes": [], "columns": columns, "attributes": {}}
    schema = pyarrow.schema({"task_index": pyarrow.int64(), index: pyarrow.string()}, {"pandas": json.dumps(theirs)})
    parquet.write_table(pyarrow.table({"task_index": [0], index: [task]}, schema=schema), path)


def _write_records(path: Path, records: list[dict[str, Any]], stats: list[dict[str, Stats]]) -> None:
    """A row for each episode, with its stats."""
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True)
    columns = {name: [record[name] for record in records] for name in records[0]}
    for feature, own in stats[0].items():
        for name in own:
            columns[f"stats/{feature}/{name}"] = [one[feature][name].tolist() for one in stats]
    columns |= {f"meta/episodes/{name}": [0] * len(records) for name in ("chunk_index", "file_index")}
    parquet.write_table(pyarrow.table(columns), path)
