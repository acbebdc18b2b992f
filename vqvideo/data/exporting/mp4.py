"""Films and tables: for each episode a film, a CSV file with a row per frame, and one JSON file about all of them.

Row t has what is done at frame t and what follows from it; the last frame's row has empty cells.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from vqvideo.data.exporting import Exporter, Outgoing, column_names, facts
from vqvideo.data.exporting.films import LOSSLESS, NEARLY, Film
from vqvideo.data.index import StoreMeta

INFO = "info.json"


class FilmsAndTables(Exporter):
    """`episode_000000.mp4` (.mkv without loss), `episode_000000.csv`, ..., `info.json`."""

    read_with = "any player, any spreadsheet, or: python scripts/import_data.py {folder}"

    def __init__(self, folder: Path, meta: StoreMeta, lossless: bool) -> None:
        super().__init__(folder, meta, lossless)
        self._encoding = LOSSLESS if lossless else NEARLY
        self._episodes: list[dict[str, Any]] = []

    def add(self, episode: Outgoing) -> None:
        stem = f"episode_{len(self._episodes):06d}"
        film = Film(self.folder / (stem + self._encoding.ending), self.meta.frame_size, self.meta.fps, self._encoding)
        try:
            for frames in episode.frames:
                film.add(frames)
        finally:
            film.close()
        with open(self.folder / f"{stem}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(self._rows(episode))
        self._episodes.append(
            {
                "video": film.path.name,
                "table": f"{stem}.csv",
                "frames": film.count,
                "seed": episode.seed,
                "split": episode.split,
            }
        )

    def _rows(self, episode: Outgoing) -> list[list[Any]]:
        """The head, and a row for each frame. Numbers are written such that reading them gives the same ones."""
        names, steps = column_names(self.meta), episode.steps
        columns: dict[str, list[Any]] = {"frame": list(range(len(steps.rewards)))}
        whole = self.meta.action_space.limits.whole
        for number, name in enumerate(names):
            values = steps.actions[:, number]
            columns[name] = (values.astype(int) if whole[number] else values).tolist()
        if "rewards" not in self.meta.missing:
            columns["reward"] = steps.rewards.tolist()
        if "ends" not in self.meta.missing:
            columns |= {name: getattr(steps, name).astype(int).tolist() for name in ("terminated", "truncated")}
        last = [len(steps.rewards)] + [""] * (len(columns) - 1)
        return [list(columns), *map(list, zip(*columns.values(), strict=True)), last]

    def finish(self) -> None:
        about = facts(self.meta) | {"action_columns": column_names(self.meta), "episodes": self._episodes}
        (self.folder / INFO).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
