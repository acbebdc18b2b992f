"""Data sets laid out as stable-worldmodel 0.1.1 lays them out become a store, with each action where it belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import videos
from PIL import Image

from vqvideo.data.config import ImportConfig
from vqvideo.data.formats import format_of
from vqvideo.data.importing import import_data
from vqvideo.data.store import Store
from vqvideo.errors import InputError

LENGTHS = (6, 4)
LAYOUTS = ["hdf5", "folder", "video"]


def episode(number: int) -> dict[str, Any]:
    """As its collector writes one of an environment that shows in which step it is, rewards as much, and ends. Steps
    are acted in by their numbers, from 0 on; the first picture is the one after the first of them.
    """
    steps = np.arange(1, LENGTHS[number] + 1)
    return {
        "pixels": np.stack([np.full((32, 32, 3), 20 * step, np.uint8) for step in steps]),
        "action": np.roll(steps - 1, -1)[:, None].astype(np.float32),
        "reward": steps.astype(np.float64),
        "terminated": steps == len(steps),
        "truncated": steps < 0,
    }


def written(folder: Path, layout: str) -> Path:
    episodes = [episode(number) for number in range(len(LENGTHS))]
    columns = {name: np.concatenate([one[name] for one in episodes]) for name in episodes[0]}
    columns |= {"ep_len": np.array(LENGTHS, np.int32), "ep_offset": np.array([0, LENGTHS[0]], np.int64)}
    if layout == "hdf5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(folder / "a.h5", "w") as file:
            for name, column in columns.items():
                file.create_dataset(name, data=column, chunks=(1, *column.shape[1:]))
        return folder / "a.h5"
    root = folder / "set"
    (root / "pixels").mkdir(parents=True)
    for name in columns.keys() - {"pixels"}:
        np.savez(root / f"{name}.npz", columns[name])
    for number, one in enumerate(episodes):
        if layout == "video":
            videos.write_video(root / "pixels" / f"ep_{number}.mp4", one["pixels"], 10, "libx264", "yuv420p")
        for step, frame in enumerate(one["pixels"] if layout == "folder" else ()):
            Image.fromarray(frame).save(root / "pixels" / f"ep_{number}_step_{step}.jpeg")
    return root


def imported(source: Path, **options: Any) -> Store:
    return Store.open(import_data(ImportConfig(source, **{"out": source.parent / "store", "frame_size": 32} | options)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_action_leads_from_its_row_and_a_reward_to_it(tmp_path: Path, layout: str) -> None:
    source = written(tmp_path, layout)
    assert format_of(source) == "stable-worldmodel"
    store = imported(source)
    assert [entry.length for entry in store.entries] == [5, 3]
    assert (store.meta.missing, store.meta.fps) == ((), 10 if layout == "video" else 25)
    for number, entry in enumerate(store.entries):
        read = store.episode(entry)
        steps = np.arange(1, entry.length + 1)
        assert read.frames.mean((1, 2, 3)) == pytest.approx(20 * np.arange(1, entry.length + 2), abs=3), number
        assert read.actions[:, 0].tolist() == read.actions[:, 0].round().tolist() == steps.tolist()
        assert read.rewards.tolist() == (steps + 1).tolist()
        assert read.terminated.tolist() == (steps == entry.length).tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_action_that_led_to_its_row_may_be_said(tmp_path: Path, layout: str) -> None:
    store = imported(written(tmp_path, layout), action_leads="to")
    assert store.episode(store.entries[1]).actions[:, 0].tolist() == [2, 3, 0]


def test_pictures_that_are_missing_are_named(tmp_path: Path) -> None:
    source = written(tmp_path, "folder")
    (source / "pixels" / "ep_1_step_3.jpeg").unlink()
    with pytest.raises(InputError, match=r"rows 6 to 9: pixels: 3 frames, expected 4 \(ep_len\).*--align shortest"):
        imported(source)
    assert [entry.length for entry in imported(source, align="shortest").entries] == [5, 2]
    (source / "pixels" / "ep_0_step_2.jpeg").unlink()
    with pytest.raises(InputError, match=r"pixels: .*ep_0_step_2\.jpeg is missing"):
        imported(source, out=tmp_path / "other")


@pytest.mark.parametrize("what", [[6, 400], [[6, 4]], None])
def test_lengths_that_lie_are_refused(tmp_path: Path, what: Any) -> None:
    source = written(tmp_path, "video")
    (source / "ep_offset.npz").unlink()
    if what is not None:
        np.savez(source / "ep_len.npz", what)
        np.savez(source / "ep_offset.npz", [0, 6])
    said = r"pixels: 4 frames, expected 400" if what == [6, 400] else r"no ep_(len|offset)\.npz with a number for each"
    with pytest.raises(InputError, match=said):
        imported(source)


def test_tables_of_lance_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "a.lance").mkdir()
    for source in (tmp_path, tmp_path / "a.lance"):
        said = r"a\.lance: a table of Lance.*data\.convert\('.*a\.lance', 'a\.h5', dest_format='hdf5'\)"
        with pytest.raises(InputError, match=said):
            imported(source)
