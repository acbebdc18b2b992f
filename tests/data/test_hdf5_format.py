"""HDF5 as several projects write it becomes a store; links and lies are refused."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vqvideo.data.config import ImportConfig
from vqvideo.data.formats import format_of, hdf5_group, reader_of
from vqvideo.data.importing import import_data
from vqvideo.data.store import Store
from vqvideo.errors import InputError

h5py = pytest.importorskip("h5py")
FRAMES = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)
STEER = np.linspace(-1, 1, 10)


def png(frame: Any) -> Any:
    with io.BytesIO() as file:
        Image.fromarray(frame).save(file, "PNG")
        return np.frombuffer(file.getvalue(), np.uint8)


PNG = png(FRAMES[0])


def imported(source: Path, **options: Any) -> Store:
    given = {"out": source.parent / "store", "steps": 200, "frame_size": 16} | options
    return Store.open(import_data(ImportConfig(source, **given)))


def write(path: Path, **arrays: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[name] = value
    return path


def test_demonstrations_of_robomimic(tmp_path: Path) -> None:
    path = tmp_path / "demos.hdf5"
    with h5py.File(path, "w") as file:
        for number in (10, 2):
            demo = file.create_group(f"data/demo_{number}")
            demo["obs/agentview_image"], demo["next_obs/agentview_image"] = FRAMES, FRAMES
            demo["obs/robot0_eef_pos"], demo["actions"] = np.zeros((10, 3)), np.full((10, 2), number / 10)
            demo["rewards"], demo["dones"] = np.arange(10.0), np.arange(10) == 9
        file["data"].attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": 20}})
    assert format_of(path) == "hdf5"
    store = imported(path)
    assert (store.meta.fps, store.meta.missing, len(store.entries)) == (20, (), 2)
    episode = store.episode(store.entries[0])
    assert episode.actions[0].tolist() == [0.2, 0.2], "demo_2 comes before demo_10"
    assert len(episode.frames) == 10
    assert episode.rewards.tolist() == list(range(9))


def test_cameras_are_to_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", **{"data/demo_0/obs/front_image": FRAMES, "data/demo_0/obs/wrist_image": FRAMES})
    with pytest.raises(InputError, match=r"demo_0: 2 cameras \(obs/front_image, obs/wrist_image\).*--cameras"):
        imported(path)
    assert not (tmp_path / "store").exists()
    assert len(imported(path, cameras=("wrist_image",)).entries)


def test_d4rl_is_cut_where_episodes_end(tmp_path: Path) -> None:
    ends, timeouts = np.arange(10) == 3, np.arange(10) == 7
    path = write(
        tmp_path / "a.hdf5", observations=FRAMES, actions=STEER, rewards=STEER, terminals=ends, timeouts=timeouts
    )
    store = imported(path, align="repeat-last")
    assert [entry.length for entry in store.entries] == [4, 4, 2]
    episode = store.episode(store.entries[0])
    assert (episode.terminated[-1], store.episode(store.entries[1]).terminated[-1]) == (True, False)
    assert store.episode(store.entries[1]).actions[:, 0] == pytest.approx(STEER[4:8])


@pytest.mark.parametrize("rows", [10, 9])
def test_the_last_frame_belongs_to_the_episode_of_its_row(tmp_path: Path, rows: int) -> None:
    """With a row per frame it begins an episode that the file cuts off; with one row less the last row led to it."""
    timeouts = np.arange(rows) == 8
    path = write(tmp_path / "a.hdf5", observations=FRAMES, actions=STEER[:rows], timeouts=timeouts)
    store = imported(path)
    assert [len(store.episode(entry).frames) for entry in store.entries] == [9 if rows == 10 else 10]


def test_rows_of_dreamer_lead_to_their_frames(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.h5", image=FRAMES, action=STEER, reward=np.arange(10.0), is_first=np.arange(10) % 5 == 0,
        is_terminal=np.arange(10) == 9,
    )  # fmt: skip
    store = imported(path)
    assert [entry.length for entry in store.entries] == [4, 4]
    assert store.episode(store.entries[1]).actions[:, 0] == pytest.approx(STEER[6:])
    assert store.episode(store.entries[1]).terminated[-1]


def test_a_file_with_an_array_for_each_frame(tmp_path: Path) -> None:
    arrays = {f"frame_{n}_x": FRAMES[n] for n in range(10)} | {f"frame_{n}_y": np.eye(51)[n] for n in range(10)}
    store = imported(write(tmp_path / "a.hdf5", **arrays))
    episode = store.episode(store.entries[0])
    assert (len(episode.frames), episode.actions.shape) == (10, (9, 51))
    assert np.argmax(episode.actions, axis=1).tolist() == list(range(9))
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        del file["frame_4_y"]
    with pytest.raises(InputError, match=r"a\.hdf5: expected frame_0_y, frame_1_y"):
        imported(tmp_path / "a.hdf5", out=tmp_path / "other")


def test_columns_name_what_has_other_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", **{"cam/front": FRAMES[..., 0], "controls/wheel": STEER})
    with pytest.raises(InputError, match=r"no pictures in it, found cam/front uint8 \(10, 16, 16\).*frames=NAME"):
        imported(path)
    store = imported(path, columns={"frames": "cam/front", "actions": "controls/wheel"})
    assert store.episode(store.entries[0]).actions[:, 0] == pytest.approx(STEER[:-1])


def test_arrays_that_may_be_actions_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.h5", frames=FRAMES, wheel=STEER, reward=STEER)
    imported(path)
    assert "no array is called action, but there are wheel: --columns actions=NAME" in capsys.readouterr().out
    write(path, frames=FRAMES, actions=[b"left"] * 10)
    with pytest.raises(InputError, match=r"actions are .* of shape \(10,\), expected finite numbers"):
        imported(path, out=tmp_path / "other")
    assert "there are no actions" not in capsys.readouterr().out


def test_rows_of_episodes_that_are_not_there_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", pixels=FRAMES, action=STEER, ep_len=[5, 5], ep_offset=[0, 5])
    assert [entry.length for entry in imported(path).entries] == [4, 4]
    write(path, pixels=FRAMES, action=STEER, ep_len=[5, 50], ep_offset=[0, 5])
    with pytest.raises(InputError, match=r"episode 1 has rows 5 to 54 \(ep_offset, ep_len\), expected some of the 10"):
        imported(path, out=tmp_path / "other")


def test_nothing_outside_the_file_is_read(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.bin", frames=FRAMES)
    for kind in ("external", "soft", "virtual", "raw"):
        path = tmp_path / f"{kind}.h5"
        with h5py.File(path, "w") as file:
            if kind == "external":
                file["frames"] = h5py.ExternalLink(secret, "frames")
            elif kind == "soft":
                file["frames"] = h5py.SoftLink("/elsewhere")
            elif kind == "virtual":
                layout = h5py.VirtualLayout(FRAMES.shape, np.uint8)
                layout[:] = h5py.VirtualSource(secret, "frames", FRAMES.shape, np.uint8)
                file.create_virtual_dataset("frames", layout)
            else:
                outside = [(str(secret), 0, FRAMES.nbytes)]
                file.create_dataset("frames", FRAMES.shape, np.uint8, external=outside)
        with pytest.raises(InputError, match=r"frames (is a link|lies in other files), expected"):
            imported(path)
    assert not (tmp_path / "store").exists()


def test_what_does_not_fit_into_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", (4, 10**6, 10**6, 3), np.uint8, chunks=(1, 100, 100, 3))
    with pytest.raises(InputError, match=r"frames: frames of 1000000 x 1000000 pixels, expected at most \d+"):
        imported(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", (4, 2**30), np.uint8, chunks=(1, 2**20))[0, :4] = list(b"\x89PNG")
    with pytest.raises(InputError, match="frames has images of 1073741824 bytes, expected at most"):
        imported(path)
    for parts in (None, (2,)):
        with h5py.File(path, "w") as file:
            file.create_dataset("frames", (4,), h5py.vlen_dtype(np.uint8), chunks=parts)[:] = [PNG] * 4
        assert len(imported(path, out=tmp_path / f"store_{parts}").entries)
        # The length of the third says 4 GB.
        with h5py.File(path) as file:
            frames = file["frames"].id
            third = frames.get_offset() + 32 if parts is None else frames.get_chunk_info(1).byte_offset
        content = path.read_bytes()
        path.write_bytes(content[:third] + b"\xff" * 4 + content[third + 4 :])
        with pytest.raises(InputError, match=r"image 2 has 4294967295 bytes, expected at most"):
            imported(path)


def test_groups_with_frames_of_their_own_are_episodes(tmp_path: Path) -> None:
    for where in ("", "episodes/", "data/"):
        path = tmp_path / f"a{len(where)}.h5"
        names = [f"{where}{name}/{array}" for name in ("walk", "run") for array in ("obs/image", "actions")]
        write(path, **{name: FRAMES if name.endswith("image") else STEER for name in names})
        store = imported(path, out=tmp_path / f"store{len(where)}")
        assert ([entry.length for entry in store.entries], store.meta.action_space.size) == ([9, 9], 1)
    one = write(tmp_path / "one.h5", **{"episodes/walk/obs/image": FRAMES, "episodes/walk/actions": STEER})
    assert imported(one, out=tmp_path / "one").meta.action_space.size == 1
    whole = write(tmp_path / "w.h5", **{"obs/image": FRAMES, "next_obs/image": FRAMES, "action/steer": STEER})
    store = imported(whole, out=tmp_path / "whole")
    assert ([entry.length for entry in store.entries], store.meta.action_space.size) == ([9], 1)


def test_an_episode_without_a_number_is_not_left_out_beside_those_that_have_one(tmp_path: Path) -> None:
    names = [f"{name}/frames" for name in ("demo_10", "demo_9", "last")]
    path = write(tmp_path / "a.h5", **dict.fromkeys(names, FRAMES), **{"mask/train": [b"demo_9"]})
    _, reader = reader_of(ImportConfig(path))
    assert list(reader.names) == ["demo_9", "demo_10", "last"]


def test_groups_that_hold_each_other_come_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_group, "_MOST_ARRAYS", 1000)
    path = write(tmp_path / "a.h5", frames=FRAMES)
    with h5py.File(path, "a") as file:
        for name in "abcdefgh":
            file[name] = file["/"]
    with pytest.raises(InputError, match="more than 1000 arrays and groups"):
        imported(path)


def test_linked_episodes_are_not_left_out_in_silence(tmp_path: Path) -> None:
    write(tmp_path / "secret.bin", **{"episode_0/frames": FRAMES})
    for kind in (h5py.ExternalLink("secret.bin", "episode_0"), h5py.SoftLink("/episode_1")):
        path = write(tmp_path / "a.h5", **{"episode_1/frames": FRAMES, "episode_1/actions": STEER})
        with h5py.File(path, "a") as file:
            file["episode_0"] = kind
        with pytest.raises(InputError, match=r"1 of 2 .*\n.*episode_0 is a link, expected what lies in this file"):
            imported(path)
        assert len(imported(path, skip_broken=True, steps=4, out=tmp_path / type(kind).__name__).entries) == 2


WITHOUT_PLUGIN = """
import sys
sys.modules["hdf5plugin"] = None
from pathlib import Path
from vqvideo.data.config import ImportConfig
from vqvideo.data.formats import reader_of
reader = reader_of(ImportConfig(Path(sys.argv[1])))[1]
reader.open(reader.names[0])
"""


def test_blosc_needs_a_package_which_is_named(tmp_path: Path) -> None:
    hdf5plugin = pytest.importorskip("hdf5plugin")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", data=FRAMES // 64, **hdf5plugin.Blosc())  # noise would stay as it is
    assert len(imported(path).entries)
    command = [sys.executable, "-c", WITHOUT_PLUGIN, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    expected = r"a\.h5: its data are compressed in a way that another package reads .*: pip install hdf5plugin"
    assert re.search(expected, run.stderr), run.stderr


def test_what_is_no_hdf5_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("junk")
    with pytest.raises(InputError, match=r"a\.h5: not an HDF5 file that can be read"):
        imported(tmp_path / "a.h5")
    write(tmp_path / "a.h5", frames=FRAMES, action=STEER[:4])
    with pytest.raises(InputError, match=r"10 frames and 4 rows, expected a row per frame or one less"):
        imported(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("frames", data=[b"pickle"] * 4, dtype=h5py.special_dtype(vlen=bytes))
    with pytest.raises(InputError, match="no pictures in it, found no arrays of numbers"):
        imported(tmp_path / "a.h5")
