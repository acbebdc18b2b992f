"""Datasets of RLDS become a store: T frames give T-1 actions, and the end lies where the environment ended."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tfrecords import example, png, write_records

from vqvideo.data.config import ImportConfig
from vqvideo.data.formats import format_of, reader_of
from vqvideo.data.importing import import_data
from vqvideo.data.store import Store
from vqvideo.errors import InputError

T = 6
FRAMES = np.stack([np.full((16, 16, 3), 30 * t, np.uint8) for t in range(T)])


def steps(number: int = 0, terminal: bool = True, **other: Any) -> dict[str, Any]:
    """The lists of an episode; an array that is None is left out."""
    at = np.arange(T)
    given = {
        "observation/image": [png(frame) for frame in FRAMES],
        "action": np.stack([at, -at], axis=1) / 10 + number,
        "reward": np.where(at == T - 1, 0.0, at + 1.0),
        "is_first": at == 0,
        "is_last": at == T - 1,
        "is_terminal": (at == T - 1) & terminal,
        "language_instruction": [b"go"] * T,
    }
    return {f"steps/{name}": value for name, value in (given | other).items() if value is not None}


def tensor(*shape: int, dtype: str = "float32", **said: Any) -> dict[str, Any]:
    return {"tensor": {"shape": {"dimensions": [str(side) for side in shape]}, "dtype": dtype, **said}}


def image(channels: int = 3, dtype: str = "uint8") -> dict[str, Any]:
    return {"image": tensor(16, 16, channels, dtype=dtype)["tensor"] | {"encodingFormat": "png"}}


def features(observation: dict[str, Any], **arrays: Any) -> str:
    """features.json as TFDS writes it."""
    inside = {"observation": {"featuresDict": {"features": observation}}, **arrays}
    said = {"sequence": {"feature": {"featuresDict": {"features": inside}}, "length": "-1"}}
    return json.dumps({"featuresDict": {"features": {"steps": said, "episode_metadata": {"text": {}}}}})


def dataset(folder: Path, *episodes: dict[str, Any], said: str | None = None) -> Path:
    """A version of a dataset, a shard for each episode."""
    version = folder / "corridor" / "1.0.0"
    for number, episode in enumerate(episodes):
        name = f"corridor-train.tfrecord-{number:05}-of-{len(episodes):05}"
        write_records(version / name, [example(episode | {"episode_metadata/file_path": [b"x"]})])
    if said is not None:
        (version / "features.json").write_text(said)
    return version


def imported(source: Path, **options: Any) -> Store:
    given = {"out": source.parent / "store", "frame_size": 16, "steps": 200} | options
    return Store.open(import_data(ImportConfig(source, **given)))


def test_frames_have_one_action_less_and_none_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = dataset(tmp_path, steps(0), steps(1, terminal=False))
    assert format_of(source) == format_of(tmp_path) == "rlds"
    store = imported(source)
    assert (store.meta.missing, [entry.length for entry in store.entries]) == ((), [T - 1, T - 1])
    ended, cut = (store.episode(entry) for entry in store.entries)
    assert ended.frames[:, 8, 8, 0].tolist() == [30 * t for t in range(T)]
    assert ended.actions[:, 0] == pytest.approx(np.arange(T - 1) / 10)
    assert cut.actions[:, 1] == pytest.approx(1 - np.arange(T - 1) / 10)
    assert ended.rewards.tolist() == [1, 2, 3, 4, 5]
    assert ended.terminated.tolist() == [False] * 4 + [True]
    assert (cut.terminated.any(), cut.truncated[-1]) == (False, True)
    said = capsys.readouterr().out
    assert "dropped" not in said
    assert "left out" not in said
    assert "from frame t to frame t+1" in said


@pytest.mark.parametrize("place", ["corridor/1.0.0", "corridor", "", "corridor/1.0.0/{}-00000-of-00001"])
def test_version_its_parents_and_a_shard_can_be_named(tmp_path: Path, place: str) -> None:
    dataset(tmp_path / "here", steps())
    source = tmp_path / "here" / place.format("corridor-train.tfrecord")
    assert format_of(source) == "rlds"
    assert len(imported(source, out=tmp_path / "store").entries) == 1


def test_a_recording_that_was_cut_off_loses_its_last_action_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = imported(dataset(tmp_path, steps(is_last=np.zeros(T, int), is_terminal=None, reward=np.ones(T))))
    assert store.entries[0].length == T - 1
    assert "the last action leads to no frame: dropped with a reward" in capsys.readouterr().out


def test_the_last_step_is_kept_when_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = dataset(tmp_path, steps(reward=(np.arange(T) == T - 1) * 1.0))
    assert imported(source).episode(Store.open(source.parent / "store").entries[0]).rewards.sum() == 0
    assert "last step has the reward 1, which means nothing in RLDS: left out" in capsys.readouterr().out
    store = imported(source, align="repeat-last", out=tmp_path / "kept")
    episode = store.episode(store.entries[0])
    assert (len(episode.frames), episode.rewards.tolist()) == (T + 1, [0, 0, 0, 0, 0, 1])
    assert episode.terminated.tolist() == [False] * 5 + [True]


def test_rows_may_be_said_to_lead_to_their_frames(tmp_path: Path) -> None:
    store = imported(dataset(tmp_path, steps()), action_leads="to")
    episode = store.episode(store.entries[0])
    assert episode.actions[:, 0] == pytest.approx(np.arange(1, T) / 10)
    assert episode.terminated.tolist() == [False] * 4 + [True]


# ---------------------------------------------------------------- actions


def test_parts_of_an_action_lie_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {"action/world_vector": np.arange(3.0 * T), "action/open": np.arange(T) % 2, "action/note": [b"x"] * T}
    source = dataset(tmp_path, steps(action=None, **parts))
    episode = imported(source).episode(Store.open(source.parent / "store").entries[0])
    assert episode.actions[:2].tolist() == [[0, 0, 1, 2], [1, 3, 4, 5]]
    assert "an action is action/open, action/world_vector beside each other" in capsys.readouterr().out
    store = imported(source, columns={"actions": "action/world_vector"}, out=tmp_path / "other")
    assert store.episode(store.entries[0]).actions[:2].tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(InputError, match=r"episode 0: there is no column 'action/wrld_vector'.*did you mean action"):
        imported(source, columns={"actions": "action/wrld_vector"}, out=tmp_path / "third")


def test_shapes_and_types_are_those_that_are_declared(tmp_path: Path) -> None:
    said = features({"image": image()}, action=tensor(2, 2, dtype="bool"))
    source = dataset(tmp_path, steps(action=np.arange(4 * T) % 3 == 0), said=said)
    store = imported(source)
    assert str(store.meta.action_space) == "MultiBinary(4)"
    assert store.episode(store.entries[0]).actions[1].tolist() == [0, 0, 1, 0]
    other = features({"image": image()}, action=tensor(7))
    with pytest.raises(InputError, match=r"episode 0: action has 24 numbers, expected 6 steps of \(7,\)"):
        imported(dataset(tmp_path / "b", steps(action=np.arange(4.0 * T)), said=other))
    with pytest.raises(InputError, match="action has 13 numbers, expected 6 steps"):
        imported(dataset(tmp_path / "c", steps(action=np.arange(13.0))))


def test_bounds_and_choices_that_are_declared_are_taken(tmp_path: Path) -> None:
    bounded = features({"image": image()}, action=tensor(2, minimum="-2", maximum="3"))
    columns = imported(dataset(tmp_path, steps(), said=bounded)).meta.action_space.columns
    assert [(column.low, column.high) for column in columns] == [(-2, 3), (-2, 3)]
    label = features({"image": image()}, action={"classLabel": {"numClasses": "9"}})
    chosen = dataset(tmp_path / "b", steps(action=np.arange(T)), said=label)
    assert str(imported(chosen).meta.action_space) == "Discrete(9)"
    own = imported(chosen, columns={"actions": "action"}, out=tmp_path / "own")
    assert str(own.meta.action_space) == f"Discrete({T - 1})"


def test_bounds_that_lie_take_no_memory(tmp_path: Path) -> None:
    said = features({"image": image()}, action=tensor(10**9, 10**9, minimum="-2", maximum="3"))
    with pytest.raises(InputError, match=r"action has 12 numbers, expected 6 steps of \(1000000000, 1000000000\)"):
        imported(dataset(tmp_path, steps(), said=said))
    for shape, most in (((-1,), "3"), ((2,), "inf")):
        odd = features({"image": image()}, action=tensor(*shape, minimum="-2", maximum=most))
        store = imported(dataset(tmp_path / f"{most}", steps(), said=odd))
        assert store.meta.action_space.columns[0].high == pytest.approx(0.44)
    label = features({"image": image()}, action={"classLabel": {"numClasses": str(10**15)}})
    chosen = imported(dataset(tmp_path / "b", steps(action=np.arange(T)), said=label))
    assert str(chosen.meta.action_space) == f"Discrete({T - 1})"


def test_choices_without_declaration_are_found(tmp_path: Path) -> None:
    store = imported(dataset(tmp_path, steps(action=np.arange(T) % 3)))
    assert str(store.meta.action_space) == "Discrete(3)"


def test_episodes_without_actions_and_rewards(tmp_path: Path) -> None:
    store = imported(dataset(tmp_path, steps(action=None, reward=None)))
    assert (store.meta.action_space.size, store.entries[0].length) == (0, T - 1)


# ---------------------------------------------------------------- cameras


def test_cameras_are_chosen_and_depth_is_none(tmp_path: Path) -> None:
    pictures = [png(255 - frame) for frame in FRAMES]
    given = {"observation/wrist": pictures, "observation/depth": pictures, "goal": pictures}
    said = features({"image": image(), "wrist": image(), "depth": image(1, "uint16")}, goal=image())
    source = dataset(tmp_path, steps(**given), said=said)
    with pytest.raises(InputError, match=r"2 cameras \(observation/image, observation/wrist\).*--cameras"):
        imported(source)
    store = imported(source, cameras=("wrist", "image"), frame_size="16x32")
    frame = store.episode(store.entries[0]).frames[1]
    assert (frame[8, 8, 0], frame[8, 24, 0]) == (225, 30)
    with pytest.raises(InputError, match=r"no camera 'depth' \(--cameras\)"):
        imported(source, cameras=("depth",), out=tmp_path / "other")
    goal = imported(source, columns={"frames": "goal"}, out=tmp_path / "goal")
    assert goal.episode(goal.entries[0]).frames[1, 8, 8, 0] == 225


def test_the_observation_may_be_the_picture_itself(tmp_path: Path) -> None:
    observation = steps() | {"steps/observation": steps()["steps/observation/image"]}
    del observation["steps/observation/image"]
    assert len(imported(dataset(tmp_path, observation)).entries) == 1


def test_pictures_that_are_only_depth_are_named(tmp_path: Path) -> None:
    source = dataset(tmp_path, steps(), said=features({"image": image(1)}))
    with pytest.raises(InputError, match=r"no pictures of three channels.*--columns frames=observation/image"):
        imported(source)
    assert imported(source, columns={"frames": "observation/image"}).entries
    with pytest.raises(InputError, match="no pictures in it"):
        imported(dataset(tmp_path / "b", steps(**{"observation/image": None})))


# ---------------------------------------------------------------- what is broken


def test_what_is_no_rlds_is_told(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.tfrecord", [example({"height": [2], "raw_video": [b"x"]})])
    with pytest.raises(InputError, match=r"a\.tfrecord: episode 0: no names that begin with steps/, found height, raw"):
        imported(path)
    with pytest.raises(InputError, match=r"a\.tfrecord: no records in it"):
        imported(write_records(path, []))
    (tmp_path / "junk.tfrecord").write_bytes(b"junk" * 100)
    with pytest.raises(InputError, match=r"junk\.tfrecord: record 0 at byte 0: its length does not fit"):
        imported(tmp_path / "junk.tfrecord")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no shards of records in it"):
        imported(tmp_path / "empty", format="rlds")


def test_episodes_before_the_damage_are_kept(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.tfrecord", [example(steps(number)) for number in range(3)])
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match=r"1 of 3 recordings.*\n.*record 2 at byte \d+: .* the file is cut off"):
        imported(path)
    assert len(imported(path, skip_broken=True).entries) == 2


def test_pictures_that_are_damaged_are_told_with_episode_camera_and_frame(tmp_path: Path) -> None:
    pictures = [png(frame) for frame in FRAMES]
    pictures[4] = b""
    source = dataset(tmp_path, steps(**{"observation/image": pictures}))
    with pytest.raises(InputError, match="episode 0: observation/image, frame 4: not an image"):
        imported(source)


@pytest.mark.parametrize("said", ["{}", "[]", '{"featuresDict": {"features": {"steps": 3}}}', "{", "[" * 5000])
def test_features_that_say_nothing_are_told(tmp_path: Path, said: str) -> None:
    with pytest.raises(InputError, match=r"features\.json: (it does not say|not valid JSON)"):
        imported(dataset(tmp_path, steps(), said=said))
    assert not (tmp_path / "corridor" / "store").exists()


def test_features_of_older_versions_are_understood(tmp_path: Path) -> None:
    kinds = "tensorflow_datasets.core.features."
    content = {"shape": [16, 16, 1], "dtype": "uint8", "encoding_format": "png"}
    depth = {"type": f"{kinds}image_feature.Image", "content": content}
    observation = {"type": f"{kinds}features_dict.FeaturesDict", "content": {"image": depth}}
    inside = {"type": f"{kinds}features_dict.FeaturesDict", "content": {"observation": observation}}
    made = {"type": f"{kinds}dataset_feature.Dataset", "content": {"feature": inside, "length": None}}
    said = json.dumps({"type": f"{kinds}features_dict.FeaturesDict", "content": {"steps": made}})
    with pytest.raises(InputError, match="no pictures of three channels with 8 bits in it, only observation/image"):
        imported(dataset(tmp_path, steps(), said=said))


def test_of_several_versions_one_is_to_be_named(tmp_path: Path) -> None:
    version = dataset(tmp_path, steps(), said=features({"image": image()}))
    newer = version.with_name("1.1.0")
    newer.mkdir()
    for path in version.iterdir():
        (newer / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"2 versions of a dataset \(1\.0\.0, 1\.1\.0\): name one, such as .*1\.1\.0"):
        imported(tmp_path)
    assert imported(newer).entries


def test_only_one_record_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vqvideo.data.formats.tfrecord import TFRecords

    path = write_records(tmp_path / "a.tfrecord", [example(steps(number)) for number in range(3)])
    read: list[int] = []
    original = TFRecords.read
    monkeypatch.setattr(TFRecords, "read", lambda self, number: read.append(number) or original(self, number))
    _, reader = reader_of(ImportConfig(path))
    assert read == []
    found = [reader.open(name) for name in reader.names]
    assert read[-3:] == [0, 1, 2]
    assert len([*found[0].moments()]) == T
    assert read[-1] == 0


def test_other_processes_read_for_themselves(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.tfrecord", [example(steps(number)) for number in range(2)])
    _, reader = reader_of(ImportConfig(path))
    found = [reader.open(name) for name in reader.names]
    copies = pickle.loads(pickle.dumps(found))
    assert [moment.frame[0, 0, 0] for moment in copies[0].moments(first=3)] == [90, 120, 150]


def test_what_tfds_itself_writes_is_read(tmp_path: Path) -> None:
    """Where TensorFlow Datasets is installed."""
    tfds = pytest.importorskip("tensorflow_datasets")
    kinds = tfds.features
    flag, number = kinds.Scalar(np.bool_), kinds.Scalar(np.float32)
    inside = {
        "observation": {"image": kinds.Image(shape=(16, 16, 3), encoding_format="png")},
        "action": kinds.Tensor(shape=(2,), dtype=np.float32),
        **{"reward": number, "is_first": flag, "is_last": flag, "is_terminal": flag},
    }
    at = np.arange(T)
    given = {"action": np.stack([at, -at], 1).astype(np.float32) / 10, "reward": at.astype(np.float32)}
    flags = {"is_first": at == 0, "is_last": at == T - 1, "is_terminal": at == T - 1}
    rows = [
        {"observation": {"image": FRAMES[t]}, **{name: column[t] for name, column in (given | flags).items()}}
        for t in range(T)
    ]

    class Corridor(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(builder=self, features=kinds.FeaturesDict({"steps": kinds.Dataset(inside)}))

        def _split_generators(self, _: Any) -> Any:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Any:
            yield from ((number, {"steps": rows}) for number in range(2))

    Corridor(data_dir=str(tmp_path / "made")).download_and_prepare()
    store = imported(tmp_path / "made", out=tmp_path / "store")
    episode = store.episode(store.entries[0])
    assert np.array_equal(episode.frames, FRAMES)
    assert episode.actions == pytest.approx(given["action"][:-1])
    assert episode.terminated[-1]
