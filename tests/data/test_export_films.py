"""Films and tables: read back by decoder and CSV reader, they hold what the store held."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import exports
import numpy as np
import pytest
from videos import read_video

from vqvideo.data.export import export_store
from vqvideo.data.export_config import ExportConfig


@pytest.mark.parametrize(("lossless", "ending", "least"), [(False, ".mp4", 40), (True, ".mkv", 130)])
def test_frames_come_back(lossless: bool, ending: str, least: float, tmp_path: Path) -> None:
    store = exports.make(tmp_path / "s", size=(48, 64))
    folder = export_store(ExportConfig(store.path, "mp4", tmp_path / "out", lossless))
    for entry in store.entries:
        frames = read_video(folder / f"episode_{entry.index:06d}{ending}")
        assert frames.shape == (entry.length + 1, 48, 64, 3)
        assert exports.psnr(frames, store.episode(entry).frames) > least


@pytest.mark.parametrize("space", ["stick", "all", "nothing"])
def test_the_table_has_a_row_per_frame_and_the_last_one_no_action(space: str, tmp_path: Path) -> None:
    store = exports.make(tmp_path / "s", space, size=(8, 8))
    folder = export_store(ExportConfig(store.path, "mp4", tmp_path / "out"))
    names = json.loads((folder / "info.json").read_text())["action_columns"]
    assert len(names) == store.meta.action_space.size
    for entry in store.entries:
        true = store.episode(entry)
        with open(folder / f"episode_{entry.index:06d}.csv", newline="") as file:
            *rows, last = csv.DictReader(file)
        assert [int(row["frame"]) for row in [*rows, last]] == list(range(entry.length + 1))
        assert [[float(row[name]) for name in names] for row in rows] == true.actions.tolist()
        assert [float(row["reward"]) for row in rows] == true.rewards.tolist()
        for name in ("terminated", "truncated"):
            assert [int(row[name]) for row in rows] == getattr(true, name).astype(int).tolist()
        assert set(last.values()) == {str(entry.length), ""}


def test_columns_of_nested_spaces_have_their_names(tmp_path: Path) -> None:
    store = exports.make(tmp_path / "s", "all", size=(8, 8))
    folder = export_store(ExportConfig(store.path, "mp4", tmp_path / "out"))
    head = (folder / "episode_000000.csv").read_text().splitlines()[0]
    leaves = [leaf.name for leaf in store.meta.action_space.leaves]
    assert leaves[0] == "a"
    assert head.startswith("frame,action_a_0,action_z_0_0,action_z_1_0,")
    assert np.isfinite([float(x) for x in (folder / "episode_000000.csv").read_text().splitlines()[1].split(",")]).all()
