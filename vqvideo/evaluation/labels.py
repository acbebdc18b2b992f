"""Worlds whose actions are labels, such as MNIST's digits: is what they imagine what the label says, and is it new?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.evaluation.label_classifier import Labelled, label_count, labelled_frames, trained_classifier
from vqvideo.evaluation.metrics import evenly
from vqvideo.evaluation.tables import cell, table
from vqvideo.models.imagination import Imaginer
from vqvideo.models.pixels import to_uint8, to_unit
from vqvideo.models.prior import Sampling
from vqvideo.models.quantizers.usage import CodeUsage
from vqvideo.models.tokenizer.vqvae import VQVAE

_BATCH = 200


@dataclass(frozen=True, eq=False)
class Shown:
    """Some frames (n, 3, h, w) uint8 of an evaluation, to be looked at."""

    real: Tensor
    """Held-out ones."""
    rebuilt: Tensor
    """The same by way of their codes."""
    codes: Tensor
    """(n, h', w') int64, these codes."""
    imagined: Tensor
    """(labels, m, 3, h, w)."""
    nearest: Tensor
    """(labels, m, 3, h, w): of the real frames of the training, those that are nearest to them."""


@dataclass(frozen=True, eq=False)
class LabelReport:
    """Figures of a world of labels."""

    recognised: NDArray[np.float64]
    """(labels,): share of the frames imagined under each label that a classifier takes for it."""
    per_label: int
    """Frames imagined under each."""
    real: float
    """Share of the real held-out frames whose label the same classifier finds."""
    rebuilt: float
    """The same of their reconstructions."""
    held_out: int
    """How many these are."""
    mse: float
    """Mean squared error of the reconstructions, of pixels in 0 .. 1."""
    usage: dict[str, float]
    """Of the codes of the held-out frames: codes_used, effective_bits, perplexity."""
    distance: float
    """Median root mean squared difference between an imagined frame and the nearest real one of the training."""
    distance_of_real: float
    """The same of reconstructions of held-out frames, as many: what is no copy is about as far."""
    shown: Shown

    def table(self) -> str:
        """What was imagined under each label, and the rest beside it."""
        rows = [[str(label), cell(100 * share, ".1f")] for label, share in enumerate(self.recognised)]
        rows.append(["all", cell(100 * self.recognised.mean(), ".1f")])
        return (
            f"{table(['label', 'recognised, %'], rows)}\n\n"
            f"{self.per_label} frames imagined under each label. The classifier finds {100 * self.real:.1f} % of the "
            f"labels of {self.held_out} real held-out frames, and {100 * self.rebuilt:.1f} % of their reconstructions\n"
            f"reconstructions: mean squared error {self.mse:.5f}, {100 * self.usage['codes_used']:.0f} % of the codes "
            f"used, {self.usage['effective_bits']:.2f} bits each\n"
            f"nearest frame of the training: {self.distance:.3f} from an imagined one, {self.distance_of_real:.3f} "
            "from the reconstruction of a real held-out one (medians of the root mean squared difference)"
        )

    def to_json(self) -> dict[str, Any]:
        """The figures."""
        plain = {name: value for name, value in vars(self).items() if name not in ("shown", "recognised")}
        return {
            "recognised": float(self.recognised.mean()),
            "recognised_by_label": self.recognised.tolist(),
            **plain,
        }


@torch.no_grad()
def imagined_by_label(
    world: Imaginer, contexts: Tensor, labels: int, per_label: int, sampling: Sampling, seed: int
) -> Tensor:
    """One step imagined under each label: (labels, m, 3, h, w) uint8.

    Args:
        world: the model.
        contexts: (n, 3, h, w) uint8, real frames to begin from, in turn.
        labels: how many there are.
        per_label: m.
        sampling: how codes are drawn.
        seed: equal ones imagine equal frames.
    """
    low = world.action_space.columns[0].low
    asked = torch.arange(labels).repeat_interleave(per_label) + low
    begun = contexts[torch.arange(len(asked)) % len(contexts)]
    parts = zip(begun.split(_BATCH), asked.split(_BATCH), strict=True)
    dreams = [
        world.imagine(frames[:, None], actions[:, None, None].float(), sampling=sampling, seed=seed + number)
        for number, (frames, actions) in enumerate(parts)
    ]
    frames = torch.cat([dream.frames[:, 0].cpu() for dream in dreams])
    return rearrange(frames, "(l m) c h w -> l m c h w", l=labels)


def nearest(frames: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Which of `among` (m, 3, h, w) is nearest to each of `frames` (n, 3, h, w), all uint8, and how far: (n,) indices
    and (n,) root mean squared differences of pixels in 0 .. 1.
    """
    wanted = to_unit(frames).flatten(1)
    best, index = torch.full((len(frames),), torch.inf), torch.zeros(len(frames), dtype=torch.int64)
    for start in range(0, len(among), 10 * _BATCH):
        part = to_unit(among[start : start + 10 * _BATCH]).flatten(1)
        found, at = (part.square().sum(dim=1) - 2 * wanted @ part.t()).min(dim=1)
        index = torch.where(found < best, at + start, index)
        best = torch.minimum(found, best)
    away = (best + wanted.square().sum(dim=1)).clamp(min=0) / wanted.shape[1]
    return index, away.sqrt()


@torch.no_grad()
def _through(vqvae: VQVAE, frames: Tensor) -> tuple[Tensor, Tensor, float]:
    """Codes (n, h', w') and reconstructions (n, 3, h, w) uint8 of frames, and their mean squared error."""
    codes, rebuilt, error = [], [], 0.0
    for part in frames.split(_BATCH):
        codes.append(vqvae.encode(part[:, None].to(vqvae.device)))
        decoded = vqvae.decode(codes[-1])[:, 0].cpu()
        error += (decoded - to_unit(part)).square().mean().item() * len(part) / len(frames)
        rebuilt.append(to_uint8(decoded))
    return torch.cat(codes)[:, 0].cpu(), torch.cat(rebuilt), error


def evaluate_labels(
    world: Imaginer,
    store: Store,
    *,
    per_label: int = 100,
    sampling: Sampling | None = None,
    epochs: int = 3,
    seed: int = 0,
    columns: int = 20,
) -> LabelReport:
    """Imagines one step under each label, and asks a classifier, trained on the real frames, what it shows.

    Args:
        world: the model, with a latent step per frame.
        store: episodes whose actions are labels; the held-out ones are measured.
        per_label: frames to imagine under each label.
        sampling: how codes are drawn.
        epochs: of the classifier.
        seed: of classifier and dreams.
        columns: frames of each kind to show.

    Raises:
        InputError: actions are no labels, or a latent step is more than a frame.
    """
    if world.stride != 1:
        raise InputError(f"a latent step of this world is {world.stride} frames, expected one: each has its label")
    labels = label_count(store)
    train, held_out = (labelled_frames(store, split) for split in ("train", "held_out"))
    judge = trained_classifier(train, labels, epochs, seed, world.device)
    codes, rebuilt, error = _through(world.vqvae, held_out.frames)
    usage = CodeUsage(world.vqvae.quantizer.codebook_size)
    usage.add(codes)
    imagined = imagined_by_label(world, held_out.frames, labels, per_label, sampling or world.sampling, seed)
    found = judge.label(imagined.flatten(0, 1)).view(labels, per_label)
    near, away = nearest(imagined.flatten(0, 1), train.frames)
    like = rebuilt[evenly(len(rebuilt), labels * per_label)]
    picks = _of_each_label(held_out, labels, columns)
    shown = Shown(
        *(held_out.frames[picks], rebuilt[picks], codes[picks], imagined[:, :columns]),
        train.frames[near].unflatten(0, (labels, per_label))[:, :columns],
    )
    return LabelReport(
        recognised=(found == torch.arange(labels)[:, None]).double().mean(dim=1).numpy(),
        per_label=per_label,
        real=_share(judge.label(held_out.frames), held_out.labels),
        rebuilt=_share(judge.label(rebuilt), held_out.labels),
        held_out=len(held_out.frames),
        mse=error,
        usage=usage.summary(),
        distance=away.median().item(),
        distance_of_real=nearest(like, train.frames)[1].median().item(),
        shown=shown,
    )


def _share(found: Tensor, labels: Tensor) -> float:
    return (found == labels).double().mean().item()


def _of_each_label(data: Labelled, labels: int, count: int) -> list[int]:
    """Numbers of `count` frames, of each label in turn."""
    places = [(data.labels == label).nonzero()[:, 0].tolist() for label in range(labels)]
    return sorted(i for number in range(count) for i in places[number % labels][number // labels :][:1])
