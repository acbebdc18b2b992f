"""The folder of one stage of a run: metrics, pictures, checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqvideo import durable
from vqvideo.checkpoint import training_checkpoints
from vqvideo.errors import InputError
from vqvideo.records import flat_settings, without_nan

if TYPE_CHECKING:
    from accelerate import Accelerator


class RunFolder:
    """Where a stage of a run writes: `metrics.jsonl`, `media/`, `checkpoints/`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.media = path / "media"
        self.checkpoints = path / "checkpoints"

    def log(self, record: Mapping[str, Any]) -> None:
        """Adds a line to metrics.jsonl."""
        with open(self.metrics, "a") as file:
            file.write(json.dumps(without_nan(record), allow_nan=False) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl. What a killed process left after the last newline is not one."""
        if not self.metrics.exists():
            return []
        return [json.loads(line) for line in self.metrics.read_text().split("\n")[:-1]]

    def rewind(self, step: int) -> None:
        """Drops the lines after `step`, which a resumed run writes again."""
        kept = [json.dumps(r) + "\n" for r in self.records() if r["step"] <= step]
        durable.write_file(self.metrics, "".join(kept).encode())


def prepare_run(path: Path, *, resume: bool, settings: object, accelerator: Accelerator) -> RunFolder:
    """The folder of a stage. Without `resume` it must not hold another run's checkpoints.

    Raises:
        InputError: there are checkpoints and `resume` was not asked for; nothing was overwritten.
    """
    run = RunFolder(path)
    if not resume and training_checkpoints(run.checkpoints):
        raise InputError(f"{path} holds a run already: go on with --resume, or name a new one with --name")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        run.media.mkdir(parents=True, exist_ok=True)
        run.checkpoints.mkdir(exist_ok=True)
        durable.clean_temporaries(run.checkpoints)
        if not resume:
            run.metrics.unlink(missing_ok=True)
    if accelerator.log_with:
        accelerator.init_trackers("tensorboard", config=flat_settings(settings))
    accelerator.wait_for_everyone()
    return run


def show_picture(accelerator: Accelerator, name: str, picture: Path, step: int) -> None:
    """Gives a PNG file to the experiment tracker, if there is one."""
    from PIL import Image

    for tracker in accelerator.trackers:
        tracker.log_images({name: np.asarray(Image.open(picture))[None]}, step, dataformats="NHWC")
