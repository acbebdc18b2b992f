"""Experiment trackers get figures, pictures and films in the form that each shows, without a network."""

from __future__ import annotations

import io
import json
import sys
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker
from PIL import Image
from tiny_models import tiny_experiment, train_config
from videos import moving_frames

from vqvideo.errors import InputError
from vqvideo.evaluation.pictures import write_mp4, write_png
from vqvideo.experiment.checks import check_settings
from vqvideo.storage.records import typed
from vqvideo.training import trackers
from vqvideo.training.config import TrainConfig
from vqvideo.training.launch import make_accelerator
from vqvideo.training.run_folder import prepare_run
from vqvideo.training.trackers import chosen_trackers, show_media

FRAMES = moving_frames(6, (32, 48))


def tracked(folder: Path, *names: str) -> Accelerator:
    """A run that logged a figure, a picture and a film at step 3."""
    cfg = train_config(trackers=names)
    accelerator = make_accelerator(cfg, folder)
    with prepare_run(folder, resume=False, settings=cfg, accelerator=accelerator) as run:
        picture, film = run.media / "dream.png", run.media / "dream.mp4"
        write_png(picture, FRAMES[0])
        write_mp4(film, FRAMES, fps=10)
        accelerator.log({"train/loss": 0.5}, step=3)
        show_media(accelerator, "dream", picture, film, step=3)
        for tracker in accelerator.trackers:
            tracker.finish()
    return accelerator


def test_tensorboard_shows_a_picture_and_a_film_that_moves(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracked(tmp_path / "run", "tensorboard")
    found = events.EventAccumulator(str(tmp_path / "run" / "tensorboard" / "vqvideo")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("train/loss")] == [(3, 0.5)]
    (picture,) = found.Images("dream")
    assert np.array_equal(Image.open(io.BytesIO(picture.encoded_image_string)), FRAMES[0])
    (film,) = found.Images("dream/film")
    moving = Image.open(io.BytesIO(film.encoded_image_string))
    assert (moving.format, moving.n_frames, moving.size, film.step) == ("GIF", 6, (48, 32), 3)
    assert moving.info["duration"] == 100


def test_a_large_film_is_shown_smaller_in_tensorboard(tmp_path: Path) -> None:
    write_mp4(tmp_path / "film.mp4", moving_frames(2, (64, 1600)), fps=200)
    w, h, gif = trackers._as_gif(tmp_path / "film.mp4")
    assert (w, h) == (640, 26)
    assert Image.open(io.BytesIO(gif)).info["duration"] == 20


def test_weights_and_biases_gets_them_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'vqvideo[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracked(tmp_path / "run", "wandb")
    (kept,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    media = {path.suffix: path for path in (kept / "files" / "media").rglob("*.*")}
    assert np.array_equal(Image.open(media[".png"]), FRAMES[0])
    assert media[".mp4"].read_bytes() == (tmp_path / "run" / "media" / "dream.mp4").read_bytes()


def test_trackio_gets_them_in_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed: pip install 'vqvideo[trackio]'")
    # It reads the variable when it is imported.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "kept"))
    for module in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, module)
    from trackio.sqlite_storage import SQLiteStorage

    tracked(tmp_path / "run", "trackio")
    (name,) = SQLiteStorage.get_runs("vqvideo")
    logs = {key: value for line in SQLiteStorage.get_logs("vqvideo", name) for key, value in line.items()}
    assert logs["train/loss"] == 0.5
    assert json.dumps(logs["dream"]).count(".png") == 1
    assert json.dumps(logs["dream/film"]).count(".mp4") == 1
    assert {path.suffix for path in (tmp_path / "kept" / "media").rglob("*.*")} == {".png", ".mp4"}


def test_settings_name_trackers_and_none_is_none() -> None:
    assert typed(TrainConfig, {"trackers": ["tensorboard", "wandb"]}).trackers == ("tensorboard", "wandb")
    assert chosen_trackers(train_config(trackers=())) == []
    assert chosen_trackers(train_config()) == (["tensorboard"] if util.find_spec("tensorboard") else [])
    with pytest.raises(InputError, match="trackers"):
        typed(TrainConfig, {"trackers": ["tensorbored"]})


@pytest.mark.parametrize("name", trackers.EXTRAS)
def test_a_tracker_that_is_not_installed_is_named_before_anything_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    with pytest.raises(InputError, match=rf"{name} is not installed: pip install 'vqvideo\[{trackers.EXTRAS[name]}\]'"):
        check_settings(tiny_experiment(tmp_path, trackers=(name,)), "vqvae")
    with pytest.raises(InputError, match="is not installed"):
        make_accelerator(train_config(trackers=(name,)), tmp_path)


def test_a_tracker_that_does_not_begin_is_an_error_that_leaves_the_folder_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any) -> None:
        raise RuntimeError("no api key")

    with monkeypatch.context() as broken:
        broken.setattr(TensorBoardTracker, "start", fail)
        with pytest.raises(InputError, match=r"tensorboard begins \(RuntimeError: no api key\).*WANDB_MODE=offline"):
            tracked(tmp_path / "run", "tensorboard")
    assert tracked(tmp_path / "run").trackers == []
