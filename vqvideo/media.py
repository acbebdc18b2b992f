"""Pictures and clips of a run: reconstructions and dreams beside what really happened."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from vqvideo.sampling import Sampling
from vqvideo.video import contact_sheet, side_by_side, stack_rows, to_uint8, write_mp4, write_png
from vqvideo.vqvae import VQVAE
from vqvideo.world import WorldModel

Frames = NDArray[np.uint8]


def as_numpy(frames: Tensor) -> Frames:
    """(b, t, c, h, w) in uint8 or 0 .. 1 to (b, t, h, w, c) uint8."""
    return rearrange(to_uint8(frames), "b t c h w -> b t h w c").cpu().numpy()


@torch.no_grad()
def reconstruction_rows(vqvae: VQVAE, frames: Tensor) -> list[list[Frames]]:
    """For each clip of (b, t, c, h, w) uint8: real, reconstructed."""
    real, rebuilt = as_numpy(frames), as_numpy(vqvae.decode(vqvae.encode(frames.to(vqvae.device))))
    return [[a, b] for a, b in zip(real, rebuilt, strict=True)]


@torch.no_grad()
def dream_rows(
    world: WorldModel, frames: Tensor, actions: Tensor, context: int, sampling: Sampling, seed: int
) -> list[list[Frames]]:
    """For each clip: real, reconstructed, imagined from the first `context` latent steps on.

    Args:
        world: the model.
        frames: (b, t, c, h, w) uint8: the clip, its context included.
        actions: (b, t - 1, a) flat actions to imagine under.
        context: latent steps that the model sees; their reconstruction stands in the imagined row.
        sampling: how codes are drawn.
        seed: of the dream.
    """
    seen = world.vqvae.clip_length(context)
    dream = world.imagine(frames[:, :seen], actions, sampling=sampling, seed=seed)
    rows = reconstruction_rows(world.vqvae, frames)
    imagined = as_numpy(dream.frames)
    return [
        [real, rebuilt, np.concatenate([rebuilt[:seen], dreamt])]
        for (real, rebuilt), dreamt in zip(rows, imagined, strict=True)
    ]


def save_media(stem: Path, clips: list[list[Frames]], fps: float, columns: int = 12) -> tuple[Path, Path | None]:
    """Writes stem.png (a contact sheet, rows of each clip) and, where PyAV is installed, stem.mp4.

    Args:
        stem: path without ending.
        clips: for each clip its rows, (t, h, w, 3) uint8 each.
        fps: of the video.
        columns: frames per row of the contact sheet.
    """
    sheets = [contact_sheet(row, columns) for rows in clips for row in rows]
    picture, video = stem.with_suffix(".png"), stem.with_suffix(".mp4")
    write_png(picture, stack_rows([sheet[None] for sheet in sheets], gap=2)[0])
    if not importlib.util.find_spec("av"):
        return picture, None
    write_mp4(video, side_by_side([stack_rows(rows) for rows in clips]), fps)
    return picture, video
