"""The pictures of a training's validations: there when all is well, and never what ends it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import TensorBoardTracker
from av.error import ExternalError
from tiny_models import tiny_experiment, tiny_store
from videos import read_video

from vqvideo.evaluation import pictures
from vqvideo.experiment import prior, tokenizer
from vqvideo.experiment.config import Experiment
from vqvideo.experiment.prior import train_prior
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.storage.checkpoint import training_checkpoints
from vqvideo.storage.files import DiskError

FAILURES = {
    "the encoder refuses": (pictures, "write_mp4", ExternalError(542398533, "Generic error")),
    "the disk is full": (pictures, "write_png", DiskError("picture.png: cannot be written (No space left on device)")),
    "memory": (pictures, "film", MemoryError("no more")),
    "the tracker": (TensorBoardTracker, "log_images", TypeError("wrong shape")),
    "a reconstruction": (tokenizer, "reconstruction_rows", RuntimeError("CUDA out of memory")),
    "a dream": (prior, "dream_rows", RuntimeError("CUDA out of memory")),
}


def trained(cfg: Experiment, folder: Path) -> dict[str, list[Path]]:
    """Trains both stages; the checkpoints of each."""
    store = tiny_store(folder / "data")
    assert train_vqvae(cfg, store)["psnr_db"] > 0
    assert train_prior(cfg, store)["token_nats"] > 0
    return {stage: training_checkpoints(cfg.folder / stage / "checkpoints") for stage in ("vqvae", "prior")}


def test_a_training_leaves_a_picture_and_a_video_of_each_validation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = tiny_experiment(tmp_path, steps=2)
    trained(cfg, tmp_path)
    found = sorted(path.name for stage in ("vqvae", "prior") for path in (cfg.folder / stage / "media").iterdir())
    assert found == [f"{name}_000002.{kind}" for name in ("dream", "reconstruction") for kind in ("mp4", "png")]
    assert len(read_video(cfg.folder / "prior" / "media" / "dream_000002.mp4")) == 7
    assert [r.getMessage() for r in caplog.records if "picture" in r.getMessage()] == []


@pytest.mark.parametrize("kind", FAILURES)
def test_a_picture_that_fails_is_a_warning_and_the_training_goes_on_to_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    where, name, error = FAILURES[kind]

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(where, name, fail)
    checkpoints = trained(tiny_experiment(tmp_path, steps=2), tmp_path)
    assert all(checkpoints.values())
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "picture" in r.getMessage()]
    assert warnings
    assert all(type(error).__name__ in text and str(error) in text and "going on" in text for text in warnings)
