"""Experiment trackers, through Accelerate: what they are started with, and pictures and films in the form each shows.

All of them work without a network: TensorBoard and trackio write files, Weights & Biases does with WANDB_MODE=offline.
What a run logs is in metrics.jsonl and media/ besides, whatever tracks it.
"""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vqvideo.errors import InputError, MissingExtraError
from vqvideo.storage.records import flat_settings
from vqvideo.training.config import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.tracking import GeneralTracker

EXTRAS = {"tensorboard": "track", "wandb": "wandb", "trackio": "trackio"}
"""The extra that brings each tracker."""
PROJECT = "vqvideo"
"""What the runs of all trackers are filed under."""
_WIDTH = 640
"""Pixels that a film in TensorBoard is wide, at most: it is a GIF, which grows quickly."""


def chosen_trackers(cfg: TrainConfig) -> list[str]:
    """The trackers that were asked for; by default TensorBoard, where it is installed.

    Raises:
        MissingExtraError: one is not installed, with the command that installs it.
    """
    if cfg.trackers is None:
        return ["tensorboard"] if find_spec("tensorboard") else []
    for name in cfg.trackers:
        if find_spec(name) is None:
            raise MissingExtraError(f"train.trackers: {name} is not installed", EXTRAS[name])
    return list(cfg.trackers)


def start_trackers(accelerator: Accelerator, run: Path, settings: object, *, resume: bool) -> None:
    """Begins a run of each tracker of the Accelerator.

    Args:
        accelerator: knows which.
        run: folder of the stage, by which the run is called.
        settings: are recorded.
        resume: go on with a run of that name, where the tracker can.

    Raises:
        InputError: one does not begin, such as Weights & Biases without an account.
    """
    if not accelerator.log_with:
        return
    name = f"{run.parent.name}-{run.name}"
    go_on = "allow" if resume else "never"
    arguments = {"wandb": {"name": name, "dir": str(run)}, "trackio": {"name": name, "resume": go_on}}
    try:
        accelerator.init_trackers(PROJECT, config=flat_settings(settings), init_kwargs=arguments)
    # Each fails in ways of its own.
    except Exception as error:
        names = ", ".join(map(str, accelerator.log_with))
        raise InputError(
            f"train.trackers: no run of {names} begins ({type(error).__name__}: {error}). Weights & Biases without an "
            "account: WANDB_MODE=offline. None at all: trackers: [] in the YAML file"
        ) from error


def show_media(accelerator: Accelerator, name: str, picture: Path, film: Path | None, step: int) -> None:
    """Gives files to all trackers.

    Args:
        accelerator: knows them.
        name: of what is shown.
        picture: PNG.
        film: MP4, or None where none could be written.
        step: of the training.
    """
    for tracker in accelerator.trackers:
        _SHOWN[tracker.name](tracker, name, picture, film, step)


def _in_tensorboard(tracker: GeneralTracker, name: str, picture: Path, film: Path | None, step: int) -> None:
    tracker.log_images({name: np.asarray(Image.open(picture))[None]}, step, dataformats="NHWC")
    if film is not None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        # As `add_video` does, which drops films without a word unless a package that edits films is installed.
        w, h, gif = _as_gif(film)
        image = Summary.Image(width=w, height=h, colorspace=3, encoded_image_string=gif)
        summary = Summary(value=[Summary.Value(tag=f"{name}/film", image=image)])
        tracker.tracker.file_writer.add_summary(summary, step)


def _in_wandb(tracker: GeneralTracker, name: str, picture: Path, film: Path | None, step: int) -> None:
    import wandb

    shown = {f"{name}/film": wandb.Video(str(film), format="mp4")} if film else {}
    tracker.log({name: wandb.Image(str(picture)), **shown}, step=step)


def _in_trackio(tracker: GeneralTracker, name: str, picture: Path, film: Path | None, step: int) -> None:
    import trackio

    shown = {f"{name}/film": trackio.Video(str(film))} if film else {}
    tracker.log({name: trackio.Image(str(picture)), **shown}, step=step)


_SHOWN: dict[str, Any] = {"tensorboard": _in_tensorboard, "wandb": _in_wandb, "trackio": _in_trackio}


def _as_gif(film: Path) -> tuple[int, int, bytes]:
    """Width, height and bytes of a film as a GIF that is played over and over."""
    import av

    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or 10)
        frames = [frame.to_image() for frame in container.decode(stream)]
    for frame in frames:
        frame.thumbnail((_WIDTH, frame.height))
    buffer = io.BytesIO()
    # No viewer shows more than 50 frames/s.
    duration = max(20, round(1000 / fps))
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)
    return *frames[0].size, buffer.getvalue()
