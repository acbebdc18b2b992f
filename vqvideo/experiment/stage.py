"""What both trainings do around the loop: begin or resume, write the settings down, train, export."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from vqvideo.evaluation.pictures import Frames, save_media
from vqvideo.experiment.config import Experiment
from vqvideo.storage import files
from vqvideo.storage.records import to_plain, write_yaml
from vqvideo.training.config import Identity, TrainConfig
from vqvideo.training.loader import Loader, WithStills, check_shared_memory
from vqvideo.training.processes import on_main_process
from vqvideo.training.run_folder import RunFolder, prepare_run
from vqvideo.training.trackers import show_media
from vqvideo.training.trainer import Trainer

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)


class Training(NamedTuple):
    """What a stage gives to the loop."""

    stage: str
    """Name of the stage and of its run folder."""
    train: TrainConfig
    """How it is trained."""
    model: nn.Module
    """What is trained."""
    identity: Identity
    """What its weights depend on."""
    begin: Callable[[], None]
    """Gives the model its first weights. Called on every rank, unless a checkpoint is continued."""
    batches: Loader | WithStills
    """Micro batches of this rank."""
    evaluate: Callable[[nn.Module, int], dict[str, float]]
    """Held-out figures of the averaged model at a step."""
    save: Callable[[], object]
    """Exports the model with its averaged weights."""


def run_training(
    cfg: Experiment, training: Training, accelerator: Accelerator, *, resume: bool, any_world_size: bool
) -> dict[str, float]:
    """Trains to the end and exports the model. Returns the last held-out figures.

    Args:
        cfg: the settings, written into the run folder.
        training: what is trained, and on what.
        accelerator: of all processes.
        resume: go on from the newest checkpoint, if there is one.
        any_world_size: also if it was written by another number of processes.
    """
    with prepare_run(cfg.folder / training.stage, resume=resume, settings=cfg, accelerator=accelerator) as run:
        trainer = Trainer(training.model, training.train, run, accelerator, training.identity)
        resumed = resume and trainer.resume(any_world_size=any_world_size)
        _write_config(cfg, trainer)
        if not resumed:
            training.begin()
        check_shared_memory(training.batches)
        figures = trainer.fit(training.batches, training.evaluate)
        _export(trainer, training.save)
        return figures


def show_clips(
    accelerator: Accelerator, folder: Path, name: str, step: int, clips: Callable[[], list[list[Frames]]], fps: float
) -> None:
    """Writes picture and video of a step and gives both to the trackers. What fails is a warning: the training,
    and its next checkpoint, are worth more.

    Args:
        accelerator: knows the trackers.
        folder: of the stage.
        name: of the picture.
        step: of the training.
        clips: makes what is shown, as `save_media` takes it.
        fps: of the video.
    """
    try:
        picture, film = save_media(RunFolder(folder).media / f"{name}_{step:06d}", clips(), fps)
        show_media(accelerator, name, picture, film, step)
    # Memory, encoder, disk and tracker fail in ways of their own, none of which is the training's.
    except Exception as error:
        logger.warning("step %d: no %s picture (%s: %s); going on", step, name, type(error).__name__, error)


def _write_config(cfg: Experiment, trainer: Trainer) -> None:
    """Puts the settings into the run folder, as a file that `--config` takes; not before a resume was accepted."""
    plain = to_plain(cfg)
    text = write_yaml({field.name: plain[field.name] for field in fields(Experiment)})
    on_main_process(lambda: files.write_file(trainer.run.path / "config.yaml", text.encode()))


def _export(trainer: Trainer, save: Callable[[], object]) -> None:
    """Saves the averaged weights, on the main process."""

    def save_average() -> None:
        with trainer.average.applied():
            save()

    on_main_process(save_average)
    # Not `end_training`: it would also part the processes, which the next stage needs.
    for tracker in trainer.accelerator.trackers:
        tracker.finish()
