"""Pictures (PNG) and videos (H.264) of a run: reconstructions and dreams beside what really happened.

Frames of any size are shown at about the same one: small ones enlarged by a whole factor, large ones shrunk until the
whole fits a screen. Videos are put together frame by frame, so that they take no more memory than their clips.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vqvideo.errors import InputError
from vqvideo.evaluation.metrics import evenly
from vqvideo.evaluation.world import through_tokenizer
from vqvideo.models.imagination import Imaginer
from vqvideo.models.pixels import channels_last, to_uint8
from vqvideo.models.prior import Sampling
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.storage.files import make_folder, replacing

Frames = NDArray[np.uint8]

LABELS = ("real", "reconstructed", "imagined")
"""What the rows of a picture show, from the top."""
DREAMT = (255, 140, 0)
"""Colour of the line above a frame that was dreamt, not seen."""
LABEL_WIDTH = 92
"""Pixels left of the rows, for what they show."""
FILM_SIDE, FILM_HEIGHT, FILM_WIDTH = 256, 2160, 1920
"""Pixels that a small frame is enlarged to in a video, about, and the most of the whole."""
SHEET_SIDE, SHEET_HEIGHT, SHEET_WIDTH = 128, 8192, 2560
"""The same of a contact sheet."""
CLIP_GAP = 3
"""White pixels between the clips of a video."""
MAX_VIDEO_SIDE = 16384
"""The encoder takes no more pixels than this."""
FPS = (0.001, 1000.0)
"""Frame rates that fit into a video file and mean something to a player."""


def as_numpy(frames: Tensor) -> Frames:
    """(b, t, c, h, w) in uint8 or 0 .. 1 to (b, t, h, w, c) uint8."""
    return channels_last(to_uint8(frames)).cpu().numpy()


@torch.no_grad()
def reconstruction_rows(vqvae: VQVAE, frames: Tensor) -> list[list[Frames]]:
    """For each clip of (b, t, c, h, w) uint8: real, reconstructed."""
    real, rebuilt = as_numpy(frames), as_numpy(through_tokenizer(vqvae, frames.to(vqvae.device))[1])
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
    rows = reconstruction_rows(world.vqvae, frames)
    imagined = _imagined(world, frames, [rebuilt for _, rebuilt in rows], actions, context, sampling, seed)
    return [[*row, dream] for row, dream in zip(rows, imagined, strict=True)]


@torch.no_grad()
def what_if_rows(
    world: Imaginer, frames: Tensor, choices: Sequence[Tensor], context: int, sampling: Sampling, seed: int
) -> list[list[Frames]]:
    """For each clip: real, and what is imagined under each of several `choices` of actions, all of which begin with the
    same context and the same noise. The arguments are those of `dream_rows`.
    """
    rows = reconstruction_rows(world.vqvae, frames)
    rebuilt = [context_of for _, context_of in rows]
    dreams = [_imagined(world, frames, rebuilt, actions, context, sampling, seed) for actions in choices]
    return [[real, *imagined] for (real, _), *imagined in zip(rows, *dreams, strict=True)]


def _imagined(
    world: Imaginer,
    frames: Tensor,
    rebuilt: Sequence[Frames],
    actions: Tensor,
    context: int,
    sampling: Sampling,
    seed: int,
) -> list[Frames]:
    """For each clip its context, rebuilt, and the dream, with a line above."""
    seen = world.vqvae.clip_length(context)
    imagined = as_numpy(world.imagine(frames[:, :seen], actions, sampling=sampling, seed=seed).frames)
    # As thick as seen from afar, whatever the size of the frames.
    imagined[:, :, : max(1, imagined.shape[2] // 64)] = DREAMT
    return [np.concatenate([past[:seen], dreamt]) for past, dreamt in zip(rebuilt, imagined, strict=True)]


def save_media(
    stem: Path, clips: list[list[Frames]], fps: float, columns: int = 12, labels: Sequence[str] = LABELS
) -> tuple[Path, Path | None]:
    """Writes stem.png (a contact sheet, rows of each clip) and, where PyAV is installed, stem.mp4.

    Args:
        stem: path without ending.
        clips: for each clip its rows, (t, h, w, 3) uint8 each, in the order of `labels`. More than `clips_on_page` are
            shown smaller.
        fps: of the video.
        columns: frames per row of the contact sheet.
        labels: what the rows show, from the top.

    Returns:
        The picture, and the video or None.
    """
    picture, video = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.mp4")
    write_png(picture, contact_sheet(clips, columns, labels))
    if not importlib.util.find_spec("av"):
        return picture, None
    write_mp4(video, film(clips, labels), fps)
    return picture, video


def clips_on_page(frame_size: tuple[int, int], rows: int = len(LABELS)) -> int:
    """How many clips of frames (h, w) a video shows beside each other at the usual size; at least 4."""
    width = _film_tile(frame_size, rows, clips=4)[1]
    return (FILM_WIDTH - LABEL_WIDTH) // (width + CLIP_GAP)


def film(clips: list[list[Frames]], labels: Sequence[str] = LABELS) -> Iterator[Frames]:
    """The frames (h', w', 3) of a video that shows clips beside each other; see `save_media`."""
    rows = len(clips[0])
    size = _film_tile(clips[0][0].shape[1:3], rows, len(clips))
    for t in range(len(clips[0][0])):
        columns = [joined([resized(row[t], size) for row in clip], axis=0) for clip in clips]
        yield labelled(joined(columns, axis=1, gap=CLIP_GAP), labels[:rows])


def contact_sheet(clips: list[list[Frames]], columns: int, labels: Sequence[str] = LABELS) -> Frames:
    """`columns` evenly spread frames of each row side by side, the clips below each other: (h', w', 3) uint8."""
    rows, frames = len(clips[0]), clips[0][0]
    most = SHEET_HEIGHT // (rows * len(clips)) - 1, (SHEET_WIDTH - LABEL_WIDTH) // columns - 2
    size = shown_size(frames.shape[1:3], SHEET_SIDE, most)
    picks = evenly(len(frames), columns)
    strips = [[joined([resized(row[i], size) for i in picks], axis=1, gap=2) for row in clip] for clip in clips]
    return joined([labelled(joined(clip, axis=0), labels[:rows]) for clip in strips], axis=0, gap=6)


def _film_tile(frame_size: tuple[int, int], rows: int, clips: int) -> tuple[int, int]:
    most = FILM_HEIGHT // rows - 1, (FILM_WIDTH - LABEL_WIDTH) // clips - CLIP_GAP
    return shown_size(frame_size, FILM_SIDE, most)


def shown_size(frame_size: tuple[int, int], side: int, most: tuple[int, int]) -> tuple[int, int]:
    """In how many pixels (h', w') a frame is shown: a small one enlarged by a whole factor, so that its longer side has
    about `side`; one that does not fit into `most` shrunk.
    """
    h, w = frame_size
    room = min(most[0] / h, most[1] / w)
    factor = min(float(max(1, round(side / max(h, w)))), room)
    if factor > 1:
        factor = int(factor)
    return max(1, int(h * factor)), max(1, int(w * factor))


def resized(frame: Frames, size: tuple[int, int]) -> Frames:
    """(h, w, 3) in the size (h', w'): pixels are repeated where it grows, averaged where it shrinks."""
    return np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BOX))


def joined(parts: Sequence[Frames], axis: int, gap: int = 1) -> Frames:
    """Pictures (h, w, 3) of one size, along an axis, with a white line of `gap` pixels between them."""
    shape = list(parts[0].shape)
    shape[axis] = gap
    line = np.full(shape, 255, np.uint8)
    return np.concatenate([piece for part in parts for piece in (line, part)][1:], axis=axis)


def labelled(picture: Frames, labels: Sequence[str]) -> Frames:
    """(h, w, 3) with a white strip on the left that names its rows, which are equally high."""
    return np.concatenate([_label_strip(len(picture), tuple(labels)), picture], axis=1)


@lru_cache(maxsize=4)
def _label_strip(height: int, labels: tuple[str, ...]) -> Frames:
    from PIL import ImageDraw, ImageFont

    strip = Image.new("RGB", (LABEL_WIDTH, height), "white")
    draw = ImageDraw.Draw(strip)
    for i, label in enumerate(labels):
        middle = height / len(labels) * (i + 0.5)
        draw.text((4, middle), label, "black", ImageFont.load_default(13), anchor="lm")
    return np.asarray(strip)


def write_mp4(path: Path, frames: Iterable[Frames], fps: float) -> None:
    """Writes frames as H.264 that every browser plays. The file appears under its name only when it is complete.

    Small frames want to be enlarged first: yuv420p halves the colour resolution, which at 64x64 alone costs about
    10 dB.

    Args:
        path: of the file.
        frames: at least one, (h, w, 3) uint8 each; they are encoded as they come.
        fps: frames per second, kept within FPS.

    Raises:
        InputError: the encoder does not take them, or is not there.
        DiskError: the file cannot be written.
    """
    try:
        import av
        from av.error import FFmpegError
    except ImportError as error:
        reinstall = "pip install --force-reinstall av"
        raise InputError(f"{path}: no video, PyAV cannot be loaded ({error}): {reinstall}") from error
    frames = iter(frames)
    first = next(frames)
    h, w = first.shape[:2]
    if max(h, w) > MAX_VIDEO_SIDE:
        raise InputError(f"{path}: {w} x {h} pixels, a video has at most {MAX_VIDEO_SIDE} on a side: show fewer clips")
    make_folder(path.parent)
    rate = Fraction(min(max(fps, FPS[0]), FPS[1])).limit_denominator(1001)
    try:
        with (
            replacing(path) as temporary,
            av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container,
        ):
            stream = container.add_stream("libx264", rate=rate, options={"crf": "16", "preset": "medium"})
            # yuv420p needs even sides.
            stream.height, stream.width = h + h % 2, w + w % 2
            stream.pix_fmt = "yuv420p"
            for frame in chain([first], frames):
                even = np.pad(frame, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
            container.mux(stream.encode())
    except (FFmpegError, av.codec.codec.UnknownCodecError) as error:
        raise InputError(
            f"{path}: no video of {w} x {h} pixels at {rate} frames/s, libx264 refuses it or is not in this PyAV "
            f"({error}): show fewer clips, or pip install --force-reinstall av"
        ) from error


def write_png(path: Path, image: Frames) -> None:
    """Writes (h, w, 3) uint8 as PNG; the file appears under its name only when it is complete."""
    make_folder(path.parent)
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
