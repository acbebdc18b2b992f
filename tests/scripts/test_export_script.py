"""`scripts/export_data.py` as a newcomer types it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exports
import pytest

from vqvideo.data.store import Store
from vqvideo.scripts import export_data

Called = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    exports.make(tmp_path / "data" / "mine", size=(8, 8))
    return tmp_path


def test_the_bare_command_says_what_it_made_and_how_it_is_read(called: Called) -> None:
    pytest.importorskip("h5py")
    code, shown = called(export_data.main, "data/mine", "--to", "minari")
    assert (code, shown) == (
        0,
        'exports/mine_minari: read it with minari.MinariDataset("exports/mine_minari/data")\n',
    )
    assert Path("exports/mine_minari/data/main_data.hdf5").is_file()


def test_options_reach_the_export(called: Called) -> None:
    assert called(export_data.main, "data/mine", "--to", "mp4", "--lossless", "--split", "train", "--out", "x")[0] == 0
    assert sorted(path.name for path in Path("x").iterdir()) == sorted(
        ["info.json", *(f"episode_{number:06d}.{ending}" for number in range(3) for ending in ("csv", "mkv"))]
    )
    with open("x/episode_000002.csv", newline="") as file:
        assert len(list(csv.reader(file))) == 1 + exports.LENGTHS[3] + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("data/nothing", "--to", "mp4"), "error: no episodes in data/nothing"),
        (("data/mine", "--to", "mp4", "--out", "data"), "error: data: it exists and is not empty"),
        (("data/mine", "--to", "hub"), "--to hub: whereto?"),
        (("data/mine", "--to", "hub", "--repo", "nobody"), "error: 'nobody' is no repository"),
        (("data/mine", "--to", "zip"), "--to"),
    ],
)
def test_what_cannot_be_done_ends_with_code_2(arguments: tuple[str, ...], message: str, called: Called) -> None:
    code, shown = called(export_data.main, *arguments)
    assert code == 2
    assert message in shown


def test_a_store_goes_to_the_hub(called: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[Any] = []

    def push(store: Store, repo_id: str, *, private: bool) -> str:
        pushed.append((store.path, repo_id, private))
        return "https://hub/me/mine"

    monkeypatch.setattr(Store, "push_to_hub", push)
    code, shown = called(export_data.main, "data/mine", "--to", "hub", "--repo", "me/mine", "--private")
    assert (code, shown) == (0, 'https://hub/me/mine: fetch it with Store.from_hub("me/mine")\n')
    assert pushed == [(Path("data/mine"), "me/mine", True)]
