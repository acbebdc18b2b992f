"""What all formats have in common: complete or absent, nothing overwritten, and a few frames in memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import av
import exports
import numpy as np
import pytest

from vqvideo.data.config import ImportConfig
from vqvideo.data.export import export_episodes, export_store, outgoing
from vqvideo.data.export_config import ExportConfig
from vqvideo.data.exporting import FORMATS, exporter_class
from vqvideo.data.importing import import_data
from vqvideo.data.store import Store
from vqvideo.errors import InputError, MissingExtraError

pytest.importorskip("h5py")
pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return exports.make(tmp_path_factory.mktemp("stores") / "mine")


def described(folder: Path) -> dict[str, Any]:
    """What went along with an export, wherever its format keeps it."""
    for name in ("meta/vqvideo.json", "info.json"):
        if (folder / name).exists():
            return json.loads((folder / name).read_text())
    return json.loads((folder / "data" / "metadata.json").read_text())["vqvideo"]


@pytest.mark.parametrize("space", exports.SPACES)
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_takes_every_action_space(format: Any, space: str, tmp_path: Path) -> None:
    store = exports.make(tmp_path / "s", space, size=(8, 8))
    folder = export_store(ExportConfig(store.path, format, tmp_path / "out"))
    about = described(folder)
    assert about["action_space"] == store.meta.action_space.to_json()
    assert (about["environment"], about["frames_per_second"], about["missing"]) == ("MyGame-v3", 10, [])


@pytest.mark.parametrize("format", FORMATS)
def test_frames_may_have_odd_sides_and_any_rate(format: Any, tmp_path: Path) -> None:
    store = exports.make(tmp_path / "s", size=(9, 7), fps=29.97)
    folder = export_store(ExportConfig(store.path, format, tmp_path / "out"))
    assert described(folder)["frames_per_second"] == 29.97


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_that_fails_leaves_nothing(format: str, store: Store, tmp_path: Path) -> None:
    def broken() -> Any:
        yield next(iter(outgoing(store, store.entries[:1])))
        raise InputError("the disk of the store is gone")

    with pytest.raises(InputError, match="is gone"):
        export_episodes(broken(), store.meta, format, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_episode_ends_an_export(format: Any, tmp_path: Path) -> None:
    store = exports.make(tmp_path / "s", size=(8, 8))
    file = store.path / store.entries[1].file
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match="damaged"):
        export_store(ExportConfig(store.path, format, tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("format", ["minari", "mp4"])
def test_what_went_out_without_loss_comes_in_again(format: Any, store: Store, tmp_path: Path) -> None:
    folder = export_store(ExportConfig(store.path, format, tmp_path / "out", lossless=True))
    back = Store.open(import_data(ImportConfig(folder, out=tmp_path / "back", frame_size=(16, 24))))
    for one, two in zip(store.entries, back.entries, strict=True):
        true, found = store.episode(one), back.episode(two)
        for name in ("frames", *found.steps._fields):
            assert np.array_equal(getattr(found, name), getattr(true, name)), name


def test_nothing_that_is_there_is_overwritten(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty; choose another folder \(--out\)"):
        export_store(ExportConfig(store.path, "mp4", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    export_store(ExportConfig(store.path, "mp4", tmp_path / "empty"))
    assert (tmp_path / "empty" / "info.json").is_file()


def test_what_an_interrupted_export_left_is_removed_by_the_next(store: Store, tmp_path: Path) -> None:
    (tmp_path / ".tmp-0a1b2c3d-out").mkdir()
    export_store(ExportConfig(store.path, "mp4", tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_one_split_can_be_exported(store: Store, tmp_path: Path) -> None:
    folder = export_store(ExportConfig(store.path, "mp4", tmp_path / "out", split="held_out"))
    assert [(one["frames"], one["split"]) for one in described(folder)["episodes"]] == [(2, "held_out")]


def test_frames_are_decoded_when_they_are_needed(store: Store) -> None:
    (episode,) = outgoing(store, store.entries[1:2])
    blocks = [len(block) for block in episode.frames]
    assert sum(blocks) == store.entries[1].length + 1 == 22
    assert max(blocks) == 16


@pytest.mark.parametrize(("format", "package"), [("minari", "h5py"), ("lerobot", "pyarrow")])
def test_a_missing_package_is_named_with_its_extra(
    format: Any, package: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vqvideo\[formats\]'"):
        export_store(ExportConfig(store.path, format, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["lerobot", "mp4"])
def test_an_encoder_that_is_not_there_is_named(
    format: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = av.open
    monkeypatch.setattr(av, "open", lambda *arguments: _Without(real(*arguments)))
    with pytest.raises(InputError, match=r"libx264 refuses it or is not in this PyAV.*pip install --force"):
        export_store(ExportConfig(store.path, format, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


class _Without:
    """A container of a PyAV that has no encoder."""

    def __init__(self, container: Any) -> None:
        self.container = container

    def add_stream(self, codec: str, **options: Any) -> Any:
        return self.container.add_stream(f"no_{codec}", **options)


def test_a_format_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match=r"--to lerobt: no such format; did you mean lerobot\?"):
        exporter_class("lerobt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "hub"}, "--repo your_name/car_racing"),
        ({"format": "hub", "repo": "a/b", "out": Path("x")}, "without --out"),
        ({"format": "mp4", "repo": "a/b"}, "belong to --to hub"),
    ],
)
def test_options_that_do_not_meet_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ExportConfig(Path("data/x"), **options)


def test_the_default_folder_names_store_and_format() -> None:
    assert ExportConfig(Path("data/car_racing"), "minari").folder == Path("exports/car_racing_minari")
