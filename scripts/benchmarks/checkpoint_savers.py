"""What is compared: our training checkpoints beside the usual ways to write the same tensors.

Ours is durable when it returns and carries a digest of every file; the others leave it to the system when their bytes
reach the disk, and notice no bit that changes there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vqvideo.scripts.benchmarks.timing import Work
from vqvideo.storage.checkpoint import TrainingState, load_training, save_training

OURS, PLAIN = "vqvideo", "safetensors"
"""Our contestant, and the one that all are compared with: the same bytes without digest and without waiting."""
KEEP = 2
"""Checkpoints that ours keeps; the others write the same files again."""
_PARTS = ("model", "optimizer", "average")


@dataclass(frozen=True)
class Shapes:
    """The parameters of a model, by shape alone: with AdamW's two moments and the average, its state is four times as
    large.
    """

    name: str
    """Shown in tables."""
    parameters: tuple[tuple[int, ...], ...]
    """Of each parameter."""

    @classmethod
    def of_size(cls, mebibytes: int) -> Shapes:
        """Matrices of a MiB, whose training state has so many MiB."""
        return cls(f"{mebibytes} MiB", ((512, 512),) * max(1, mebibytes // 4))

    def model(self) -> nn.ParameterList:
        """Parameters of noise, each with a gradient."""
        generator = torch.Generator().manual_seed(0)
        parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in self.parameters]
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 1e-3)
        return nn.ParameterList(parameters)

    def state(self) -> TrainingState:
        """The training state of such a model, as the training loop hands it over."""
        model, average = self.tensors("model"), self.tensors("average")
        return TrainingState(model, self.tensors("optimizer"), average, {"step": 1})

    def tensors(self, part: str) -> dict[str, Tensor]:
        """What a part of the state consists of: copies of the model's parameters, for the optimizer two of each."""
        kinds = ("/exp_avg", "/exp_avg_sq") if part == "optimizer" else ("",)
        return {
            f"{name}{kind}": value.detach().clone() for name, value in self.model().named_parameters() for kind in kinds
        }


@dataclass(frozen=True)
class Saver:
    """A way to save a training state: a contestant."""

    name: str
    """Key of `SAVERS`."""
    shapes: Shapes
    """What is saved."""
    folder: Path
    """Where to; it exists."""

    def prepare(self, device: torch.device) -> Work:
        return SAVERS[self.name](self.shapes, self.folder)


def _ours(shapes: Shapes, folder: Path) -> Work:
    state, steps = shapes.state(), count(1)
    return lambda: save_training(folder, next(steps), state, KEEP)


def _safetensors(shapes: Shapes, folder: Path) -> Work:
    state = shapes.state()

    def save() -> None:
        for part in _PARTS:
            save_file(getattr(state, part), folder / f"{part}.safetensors")

    return save


def _safetensors_synced(shapes: Shapes, folder: Path) -> Work:
    save = _safetensors(shapes, folder)

    def save_and_sync() -> None:
        save()
        for part in _PARTS:
            with open(folder / f"{part}.safetensors", "rb") as file:
                os.fsync(file.fileno())

    return save_and_sync


def _torch(shapes: Shapes, folder: Path) -> Work:
    state = shapes.state()
    return lambda: torch.save({part: getattr(state, part) for part in _PARTS}, folder / "state.pt")


def _accelerate(shapes: Shapes, folder: Path) -> Work:
    from accelerate import Accelerator

    accelerator, model = Accelerator(cpu=True), shapes.model()
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=0.0))
    optimizer.step()
    accelerator.register_for_checkpointing(_Kept(shapes.tensors("average")))
    return lambda: accelerator.save_state(str(folder))


class _Kept:
    """Further tensors of the state, in the shape that Accelerate asks for."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors

    def state_dict(self) -> dict[str, Tensor]:
        return self._tensors

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors


SAVERS: dict[str, Callable[[Shapes, Path], Work]] = {
    OURS: _ours,
    f"{PLAIN}, synced": _safetensors_synced,
    PLAIN: _safetensors,
    "torch.save": _torch,
    "Accelerate save_state": _accelerate,
}
"""Ways to save, ours first."""


def loaders(shapes: Shapes, folder: Path) -> dict[str, Callable[[], Any]]:
    """Ways to read the same state again, from files that are written below `folder`: ours, which compares every file
    with its digest, and the plain reading of the tensors.
    """
    ours = save_training(_made(folder / "ours"), 1, shapes.state(), KEEP)
    plain = _made(folder / "plain")
    _safetensors(shapes, plain)()
    return {
        OURS: lambda: load_training(ours),
        PLAIN: lambda: [_read(plain / f"{part}.safetensors") for part in _PARTS],
    }


def _read(path: Path) -> dict[str, Tensor]:
    # By itself the library maps the file, and nothing is read before it is used.
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
