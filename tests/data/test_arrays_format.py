"""Episodes in npz and npy files become a store; objects and lies are refused."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqvideo.data.config import ImportConfig
from vqvideo.data.formats import arrays, format_of, pictures, reader_of
from vqvideo.data.importing import import_data
from vqvideo.data.store import Store
from vqvideo.errors import InputError

FRAMES = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)
STEER = np.linspace(-1, 1, 10)


def imported(source: Path, **options: Any) -> Store:
    given = {"out": source.parent / "store", "steps": 200, "frame_size": 16} | options
    return Store.open(import_data(ImportConfig(source, **given)))


def folder_of(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npz_is_an_episode(tmp_path: Path, compressed: bool, order: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BLOCK_BYTES", 2000)
    folder = folder_of(tmp_path)
    for name in ("a", "b"):
        save = np.savez_compressed if compressed else np.savez
        save(folder / f"{name}.npz", frames=np.asarray(FRAMES, order=order), actions=STEER[:9], info=np.array(["x"]))
    assert format_of(folder) == "arrays"
    plain = imported(folder, frame_size=16)
    assert len(plain.entries) == 2
    episode = plain.episode(plain.entries[0])
    assert (len(episode.frames), plain.meta.missing) == (10, ("ends", "rewards"))
    assert episode.actions[:, 0] == pytest.approx(STEER[:9])
    assert np.abs(episode.frames.mean((1, 2, 3)) - FRAMES.mean((1, 2, 3))).max() < 3


def test_one_file_has_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "a.npz", frames=FRAMES, actions=np.where(STEER > 0, np.nan, STEER))
    with pytest.raises(InputError, match=r"a\.npz: the action of row 5 is \[nan\]"):
        imported(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", frames=FRAMES, actions=STEER)
    imported(tmp_path / "a.npz")
    assert "\n  a.npz: 16 x 16 pixels" in capsys.readouterr().out
    np.savez(tmp_path / "a.npz", frames=np.zeros((4, 16, 16, 12), np.uint8))
    with pytest.raises(InputError, match=r"frames: shape \(4, 16, 16, 12\).*Are these several frames stacked"):
        imported(tmp_path / "a.npz", out=tmp_path / "other")


def test_episodes_of_dreamer_are_cut_and_lead_to_their_frames(tmp_path: Path) -> None:
    first = np.arange(10) % 5 == 0
    np.savez_compressed(
        tmp_path / "a.npz", image=FRAMES, action=STEER, reward=STEER, is_first=first, is_terminal=np.arange(10) == 9
    )
    store = imported(tmp_path / "a.npz")
    assert [entry.length for entry in store.entries] == [4, 4]
    assert store.episode(store.entries[1]).actions[:, 0] == pytest.approx(STEER[6:])
    assert store.episode(store.entries[1]).terminated[-1]


def test_arrays_of_many_episodes_are_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    for made in (arrays._Unpacking, arrays.Archive):
        work = "__init__" if made is arrays._Unpacking else "whole_column"
        true = getattr(made, work)
        monkeypatch.setattr(made, work, lambda *given, true=true, work=work: (begun.append(work), true(*given))[1])
    path = tmp_path / "a.npz"
    for shift in (0, 1):
        frames = np.roll(FRAMES, shift, axis=0)
        np.savez_compressed(path, front=frames, action=STEER, is_last=np.arange(10) % 2 == 1)
        begun.clear()
        store = imported(path, out=tmp_path / f"store{shift}")
        assert [entry.length for entry in store.entries] == [1] * 5
        assert store.episode(store.entries[3]).frames[0].mean() == pytest.approx(frames[6].mean(), abs=2)
        assert (begun.count("whole_column"), begun.count("__init__")) == (2, 2), (
            "to look at the frames, and to store them"
        )


def test_other_processes_get_no_columns_that_were_unpacked(tmp_path: Path) -> None:
    actions = np.random.default_rng(0).normal(size=(10, 1000))
    np.savez_compressed(tmp_path / "a.npz", frames=FRAMES, action=actions, is_last=np.arange(10) == 4)
    recording = reader_of(ImportConfig(tmp_path / "a.npz"))[1].open("rows 5 to 9")
    sent = pickle.dumps(recording)
    assert len(sent) < 0.6 * actions.nbytes
    assert np.array_equal([moment.frame for moment in pickle.loads(sent).moments(1)], FRAMES[6:])


def test_cameras_of_an_npz_are_unpacked_beside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BLOCK_BYTES", 2000)
    np.savez_compressed(tmp_path / "a.npz", left=FRAMES, right=255 - FRAMES, action=STEER)
    store = imported(tmp_path / "a.npz", cameras=("left", "right"), frame_size="16x32")
    left, right = np.split(store.episode(store.entries[0]).frames.astype(int), 2, axis=2)
    assert left + right == pytest.approx(255, abs=40)


def test_a_folder_of_npy_is_an_episode(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    for name in ("a", "b"):
        (folder / name).mkdir()
        np.save(folder / name / "frames.npy", FRAMES.transpose(0, 3, 1, 2))
        np.save(folder / name / "actions.npy", np.arange(10) % 3)
    store = imported(folder)
    assert (str(store.meta.action_space), [entry.length for entry in store.entries]) == ("Discrete(3)", [9, 9])


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    np.savez(folder / "a.npz", frames=np.array([{"x": 1}] * 4, dtype=object))
    with pytest.raises(InputError, match=r"a\.npz: no pictures in it, found no arrays of numbers.*--columns frames"):
        imported(folder)
    (folder / "a.npz").unlink()
    np.save(folder / "frames.npy", np.array([{"x": 1}] * 4, dtype=object))
    with pytest.raises(InputError, match=r"frames\.npy: no arrays of NumPy that can be read"):
        imported(folder)
    assert not (tmp_path / "store").exists()


def test_what_says_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 64, 64, 3)})
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        archive.writestr("frames.npy", header.getvalue() + b"0" * 80)
    with pytest.raises(InputError, match=r"a\.npz: frames says 12288000000000 bytes of uint8"):
        imported(folder)
    (folder / "a.npz").write_bytes(b"junk")
    np.savez(folder / "b.npz", frames=FRAMES, actions=STEER)
    with pytest.raises(InputError, match=r"1 of 2 .*\n.*a\.npz: no arrays of NumPy that can be read"):
        imported(folder)
    assert not (tmp_path / "store").exists()
    assert len(imported(folder, skip_broken=True, steps=4).entries) == 2
