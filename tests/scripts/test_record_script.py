"""The recording script: what it writes, what it says, and how it ends."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro

from vqvideo import cli
from vqvideo.data.config import RecordConfig, snake_case
from vqvideo.data.store import Store
from vqvideo.envs.recording import record, squashed, with_enough
from vqvideo.errors import InputError


def options(tmp_path: Path, **settings: object) -> RecordConfig:
    defaults = {"env": "TinyWorld", "out": tmp_path / "store", "episodes": 3, "steps": 6, "workers": 0}
    return RecordConfig(**(defaults | settings))  # type: ignore[arg-type]


def test_a_store_is_recorded_and_says_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = record(options(tmp_path, held_out_every=3, frame_size=16, action_repeat=2, seed=7))
    store = Store.open(out)
    assert len(store.entries) == 3
    assert [entry.split for entry in store.entries] == ["train", "train", "held_out"]
    assert store.episode(store.entries[0]).frames.shape[1:] == (16, 16, 3)
    meta = store.meta
    assert (meta.env_id, meta.policy, meta.seed) == ("TinyWorld", "sticky-random", 7)
    assert (meta.action_repeat, meta.fps, meta.frame_size) == (2, 5.0, (16, 16))
    assert '"max_episode_steps": 200' in (meta.env_spec or "")
    assert {"gymnasium", "numpy", "vqvideo"} <= set(meta.versions)
    assert "3 new episodes (0 before)" in capsys.readouterr().out


def test_where_episodes_end_early_there_are_as_many_as_it_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = options(tmp_path, steps=3, frames=24)
    store = Store.open(record(asked))
    assert sum(entry.length + 1 for entry in store.entries) >= 24
    assert f"so {len(store.entries)} episodes make the 24 frames" in capsys.readouterr().out
    assert with_enough(asked) == dataclasses.replace(asked, episodes=len(store.entries), frames=None)
    assert Store.open(record(asked)).digest == store.digest


def test_a_second_run_has_nothing_to_do_and_a_longer_one_adds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = record(options(tmp_path))
    digest = Store.open(out).digest
    record(options(tmp_path))
    assert "holds 3 episodes already; nothing to record" in capsys.readouterr().out
    assert Store.open(out).digest == digest
    record(options(tmp_path, episodes=5))
    assert "2 new episodes (3 before)" in capsys.readouterr().out
    record(options(tmp_path, episodes=5, out=tmp_path / "whole"))
    assert Store.open(out).digest == Store.open(tmp_path / "whole").digest


def test_the_car_racing_preset_records_64_pixel_frames_of_driving(tmp_path: Path) -> None:
    store = Store.open(record(options(tmp_path, env="CarRacing", episodes=1, steps=40, frame_size=64)))
    episode = store.episode(store.entries[0])
    assert episode.frames.shape == (41, 64, 64, 3)
    assert (store.meta.action_repeat, store.meta.skip_first, store.meta.policy) == (2, 50, "drive")
    assert store.meta.fps == 25.0
    # The road is gray and takes as many pixels in the first frame as later: the zoom is over.
    gray = np.ptp(episode.frames[:20].astype(int), axis=-1) < 10
    road = gray[:, :54].mean(axis=(1, 2))
    assert road[0] == pytest.approx(road[1:].mean(), rel=0.4)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"env": "CarRacng"}, "did you mean CarRacing"),
        ({"policy": "stiky-random"}, "did you mean sticky-random"),
        ({"policy": "drive"}, "drives CarRacing"),
        ({"episodes": 0}, "--episodes is 0"),
        ({"action_repeat": 0}, "--action-repeat is 0"),
        ({"reset_timeout": -1.0}, "--reset-timeout is -1.0, expected at least 0"),
        ({"held_out_every": -1}, "held-out-every"),
        ({"workers": -1}, "workers"),
    ],
)
def test_wrong_settings_are_explained(tmp_path: Path, wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        record(options(tmp_path, **wrong))


@pytest.mark.parametrize(
    ("given", "size"), [(64, (64, 64)), ("48x96", (48, 96)), ("48 X 96", (48, 96)), ("32", (32, 32)), ((8, 9), (8, 9))]
)
def test_a_frame_size_is_a_side_or_height_and_width(given: Any, size: tuple[int, int]) -> None:
    assert RecordConfig(frame_size=given).size == size


@pytest.mark.parametrize("given", [0, -1, "0x4", "48x", "x", "", "wide", "1x2x3", (48,) * 3, (), (4, -4)])
def test_an_impossible_frame_size_is_answered_with_how_one_is_written(given: Any) -> None:
    with pytest.raises(InputError, match=r"--frame-size is .*as in 64, or height x width, as in 48x96"):
        RecordConfig(frame_size=given)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"env": "my env:My-v0", "out": Path("some where"), "frame_size": (8, 9), "pixels": "arm/camera", "seed": 3},
        {"frame_size": "48X96", "env_kwargs": {"map": "a b", "size": [1, "x"], "gain": 1e-3, "on": True, "none": None}},
        {"env_kwargs": {"text": "true", "number": "3"}, "policy": "random", "step_timeout": 5.0},
    ],
)
def test_the_command_of_a_recording_repeats_its_settings(settings: dict[str, Any]) -> None:
    wanted = RecordConfig(**settings)
    python, name, *words = shlex.split(wanted.command)
    assert (python, name) == ("python", "scripts/record.py")
    typed = tyro.cli(RecordConfig, args=words)
    assert typed.size == wanted.size
    assert dataclasses.replace(typed, frame_size=1) == dataclasses.replace(wanted, frame_size=1)


def test_frames_that_are_no_squares_are_recorded_in_their_shape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = record(options(tmp_path, env="CartPole-v1", frame_size="16x24", episodes=1))
    assert Store.open(out).meta.frame_size == (16, 24)
    assert "squashed" not in capsys.readouterr().out
    record(options(tmp_path, env="CartPole-v1", frame_size=16, episodes=1, out=tmp_path / "square"))
    assert "the frames are 400x600, stored at 16x16: squashed; --frame-size 32x48 or" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ((48, 96), "48x96 or 32x64"),
        ((210, 160), "64x48"),
        ((400, 600), "64x96 or 32x48"),
        ((240, 320), "48x64"),
        ((16, 999), "squashed$"),
    ],
)
def test_frames_that_are_squashed_come_with_sizes_that_keep_their_shape(source: tuple[int, int], advice: str) -> None:
    assert re.search(advice, squashed(source, (64, 64)))
    assert not squashed(source, source)
    assert not squashed((97, 96), (64, 64))


def test_the_default_folder_is_named_after_the_environment() -> None:
    assert snake_case("CarRacing") == "car_racing"
    assert snake_case("ALE/Pong-v5") == "ale_pong_v5"
    assert snake_case("TinyWorld") == "tiny_world"
    assert snake_case("VizdoomMyWayHome-v1") == "vizdoom_my_way_home_v1"


@pytest.mark.parametrize(("error", "left"), [(KeyboardInterrupt, SystemExit), (ZeroDivisionError, ZeroDivisionError)])
def test_ctrl_c_ends_a_script_with_code_130_and_a_bug_keeps_its_traceback(
    error: type[BaseException], left: type[BaseException]
) -> None:
    def main() -> None:
        raise error

    with pytest.raises(left) as end:
        cli.run(main)
    assert getattr(end.value, "code", 130) == 130
