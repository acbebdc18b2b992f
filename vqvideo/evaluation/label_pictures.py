"""What a world of labels makes of them, in one picture: reconstructions, their codes, frames imagined by label."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vqvideo.evaluation.labels import Shown
from vqvideo.evaluation.pictures import Frames, joined, labelled, resized, shown_size
from vqvideo.models.pixels import channels_last

_SIDE = 56
"""Pixels to which a frame is enlarged, about."""
_GAP = 8
_MOST = (512, 512)


def label_sheet(shown: Shown) -> Frames:
    """(h, w, 3) uint8: real frames, their reconstructions and codes; imagined ones, a row for each label; and the
    nearest real ones of the training below imagined ones, of each label in turn.
    """
    size = shown_size((shown.real.shape[-2], shown.real.shape[-1]), _SIDE, _MOST)
    labels, columns = shown.imagined.shape[:2]
    turns = torch.arange(columns) % labels, torch.arange(columns) // labels
    parts: list[dict[str, Tensor | Frames]] = [
        {"real": shown.real, "reconstructed": shown.rebuilt, "codes": code_map(shown.codes)},
        {str(label): shown.imagined[label] for label in range(labels)},
        {"imagined": shown.imagined[turns], "nearest real": shown.nearest[turns]},
    ]
    sheets = [labelled(joined([_strip(row, size) for row in part.values()], axis=0), list(part)) for part in parts]
    width = max(sheet.shape[1] for sheet in sheets)
    sheets = [np.pad(s, ((_GAP, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in sheets]
    return np.concatenate(sheets)


def code_map(codes: Tensor) -> Frames:
    """Codes (n, h, w) as pictures (n, h, w, 3): a colour for each code, which says nothing of its meaning."""
    # By the golden ratio codes that follow each other look unlike.
    hue = (codes.numpy()[..., None] * 0.618034 + np.array([0, 1 / 3, 2 / 3])) % 1
    return (255 * (0.5 + 0.5 * np.cos(2 * np.pi * hue))).astype(np.uint8)


def _strip(row: Tensor | Frames, size: tuple[int, int]) -> Frames:
    frames = channels_last(row).numpy() if isinstance(row, Tensor) else row
    return joined([resized(frame, size) for frame in frames], axis=1)
