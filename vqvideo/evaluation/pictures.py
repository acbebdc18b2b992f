"""Pictures (PNG) and videos (H.264) of a run: reconstructions and dreams beside what really happened."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vqvideo.evaluation.metrics import evenly
from vqvideo.models.imagination import Imaginer
from vqvideo.models.pixels import channels_last, to_uint8
from vqvideo.models.prior import Sampling
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.storage.files import make_folder, replacing

Frames = NDArray[np.uint8]

LABELS = ("real", "reconstructed", "imagined")
"""What the rows of a picture show, from the top."""
VIDEO_SCALE = 4
"""Nearest-neighbour upscale of the videos."""
DREAMT = (255, 140, 0)
"""Colour of the line above a frame that was dreamt, not seen."""


def as_numpy(frames: Tensor) -> Frames:
    """(b, t, c, h, w) in uint8 or 0 .. 1 to (b, t, h, w, c) uint8."""
    return channels_last(to_uint8(frames)).cpu().numpy()


@torch.no_grad()
def reconstruction_rows(vqvae: VQVAE, frames: Tensor) -> list[list[Frames]]:
    """For each clip of (b, t, c, h, w) uint8: real, reconstructed."""
    real, rebuilt = as_numpy(frames), as_numpy(vqvae.decode(vqvae.encode(frames.to(vqvae.device))))
    return [[a, b] for a, b in zip(real, rebuilt, strict=True)]


@torch.no_grad()
def dream_rows(
    world: Imaginer, frames: Tensor, actions: Tensor, context: int, sampling: Sampling, seed: int
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
    imagined[:, :, :1] = DREAMT
    return [
        [real, rebuilt, np.concatenate([rebuilt[:seen], dreamt])]
        for (real, rebuilt), dreamt in zip(rows, imagined, strict=True)
    ]


def save_media(stem: Path, clips: list[list[Frames]], fps: float, columns: int = 12) -> tuple[Path, Path | None]:
    """Writes stem.png (a contact sheet, rows of each clip) and, where PyAV is installed, stem.mp4.

    Args:
        stem: path without ending.
        clips: for each clip its rows, (t, h, w, 3) uint8 each, in the order of LABELS.
        fps: of the video.
        columns: frames per row of the contact sheet.

    Returns:
        The picture, and the video or None.
    """
    labels = LABELS[: len(clips[0])]
    picture, video = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.mp4")
    sheets = [[contact_sheet(row, columns)[None] for row in rows] for rows in clips]
    labelled = [add_labels(joined(rows, axis=1), labels) for rows in sheets]
    write_png(picture, joined(labelled, axis=1, gap=6)[0])
    if not importlib.util.find_spec("av"):
        return picture, None
    scaled = [[upscale(row, VIDEO_SCALE) for row in rows] for rows in clips]
    film = joined([joined(rows, axis=1) for rows in scaled], axis=2, gap=3)
    write_mp4(video, add_labels(film, labels), fps)
    return picture, video


def joined(parts: Sequence[Frames], axis: int, gap: int = 1) -> Frames:
    """Clips (t, h, w, 3) or pictures of one size, along an axis, with a white line of `gap` pixels between them."""
    shape = list(parts[0].shape)
    shape[axis] = gap
    line = np.full(shape, 255, np.uint8)
    return np.concatenate([piece for part in parts for piece in (line, part)][1:], axis=axis)


def contact_sheet(frames: Frames, columns: int, scale: int = 2) -> Frames:
    """`columns` evenly spread frames of (t, h, w, 3) side by side, enlarged: (h', w', 3) uint8."""
    return joined(list(upscale(frames[evenly(len(frames), columns)], scale)), axis=1, gap=scale)


def add_labels(frames: Frames, labels: Sequence[str], width: int = 92) -> Frames:
    """(t, h, w, 3) with a white strip on the left that names its rows, which are equally high."""
    from PIL import ImageDraw, ImageFont

    strip = Image.new("RGB", (width, frames.shape[1]), "white")
    draw, height = ImageDraw.Draw(strip), frames.shape[1] / len(labels)
    for i, label in enumerate(labels):
        draw.text((4, height * (i + 0.5)), label, "black", ImageFont.load_default(13), anchor="lm")
    return np.concatenate([np.broadcast_to(np.asarray(strip), (len(frames), *np.asarray(strip).shape)), frames], axis=2)


def upscale(frames: Frames, factor: int) -> Frames:
    """Nearest-neighbour upscale of (t, h, w, 3) by a whole factor."""
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def write_mp4(path: Path, frames: Frames, fps: float) -> None:
    """Writes frames as H.264 that every browser plays. The file appears under its name only when it is complete.

    Small frames want to be upscaled first: yuv420p halves the colour resolution, which at 64x64 alone costs about
    10 dB.

    Args:
        path: of the file.
        frames: (t, h, w, 3) uint8.
        fps: frames per second.

    Raises:
        DiskError: the file cannot be written.
    """
    import av

    h, w = frames.shape[1:3]
    # yuv420p needs even sides.
    frames = np.pad(frames, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")
    make_folder(path.parent)
    with (
        replacing(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate, options={"crf": "16", "preset": "medium"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_png(path: Path, image: Frames) -> None:
    """Writes (h, w, 3) uint8 as PNG; the file appears under its name only when it is complete."""
    make_folder(path.parent)
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
