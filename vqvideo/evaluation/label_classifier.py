"""A small network that says what a frame shows, trained on real frames with labels: it judges imagined ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvideo.data.clips import to_video
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.models.pixels import to_signed

_BATCH = 128
_RATE = 2e-3


class Labelled(NamedTuple):
    """Frames with what they show."""

    frames: Tensor
    """(n, 3, h, w) uint8."""
    labels: Tensor
    """(n,) int64, from 0 on."""


def label_count(store: Store) -> int:
    """How many labels the actions of a store tell apart. InputError if an action is no label."""
    columns = store.meta.action_space.columns
    if len(columns) != 1 or columns[0].categories is None:
        raise InputError(
            f"{store.path}: actions are {store.meta.action_space}, expected one label per frame, such as the digits of "
            "MNIST: python scripts/import_data.py data/MNIST --frame-size 28 --out data/mnist"
        )
    return columns[0].categories


def labelled_frames(store: Store, split: str) -> Labelled:
    """All frames of a split to which an action leads, with that action as their label. InputError if there are none."""
    low = store.meta.action_space.columns[0].low
    episodes = [store.episode(entry) for entry in store.long_enough(split, 2)]
    frames = torch.cat([to_video(episode.frames[1:]) for episode in episodes])
    labels = torch.cat([torch.from_numpy(episode.actions[:, 0] - low) for episode in episodes])
    return Labelled(frames, labels.long())


class LabelClassifier(nn.Module):
    """Two convolutions and two linear layers: 99 % of MNIST's test images after three epochs.

    Args:
        frame_size: (h, w) in pixels.
        labels: how many.
    """

    def __init__(self, frame_size: tuple[int, int], labels: int) -> None:
        super().__init__()
        h, w = frame_size
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 32, 5, stride=2, padding=2), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(64 * -(-h // 4) * -(-w // 4), 128), nn.ReLU(), nn.Dropout(0.5)),
            nn.Linear(128, labels),
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Logits (n, labels) of frames (n, 3, h, w) uint8."""
        return self.layers(to_signed(frames))

    @torch.no_grad()
    def label(self, frames: Tensor) -> Tensor:
        """The likeliest labels (n,) of frames (n, 3, h, w) uint8, on the CPU."""
        device = next(self.parameters()).device
        return torch.cat([self(part.to(device)).argmax(dim=1).cpu() for part in frames.split(4 * _BATCH)])


def trained_classifier(data: Labelled, labels: int, epochs: int, seed: int, device: torch.device) -> LabelClassifier:
    """A classifier that has seen each frame so many times; equal seeds train equal ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LabelClassifier((data.frames.shape[-2], data.frames.shape[-1]), labels).to(device)
        optimizer = torch.optim.Adam(model.parameters(), _RATE)
        steps = epochs * -(-len(data.frames) // _BATCH)
        falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
        for _ in range(epochs):
            for picks in torch.randperm(len(data.frames)).split(_BATCH):
                logits = model(data.frames[picks].to(device))
                F.cross_entropy(logits, data.labels[picks].to(device)).backward()
                optimizer.step()
                optimizer.zero_grad()
                falling.step()
    return model.eval()
