"""A step of either training in its parts, as the loop takes it: data, forward, backward, optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from vqvideo.experiment.config import PriorStage, VQVAEStage
from vqvideo.experiment.objective import TokenizerObjective
from vqvideo.scripts.benchmarks.dreams import Untrained
from vqvideo.scripts.benchmarks.timing import Work
from vqvideo.training.config import TrainConfig
from vqvideo.training.optimizers import AveragedWeights, make_optimizer

Batch = dict[str, Tensor]


class TrainingStep:
    """One step under way; `parts` in their order are what calling it does."""

    def __init__(self, model: nn.Module, cfg: TrainConfig, data: Callable[[], Batch], autocast: torch.autocast) -> None:
        self.model, self.cfg = model.train(), cfg
        self.optimizer = make_optimizer(model, cfg)
        self.average = AveragedWeights(dict(model.named_parameters()), cfg.average_decay)
        self._draw, self._autocast = data, autocast
        self._batch: Batch = {}
        self._loss = torch.zeros(())
        self.parts: dict[str, Work] = {
            "data": self._load,
            "forward": self._forward,
            "backward": self._backward,
            "optimizer": self._update,
        }

    def __call__(self) -> None:
        for part in self.parts.values():
            part()

    def _load(self) -> None:
        self._batch = self._draw()

    def _forward(self) -> None:
        with self._autocast:
            self._loss = self.model(**self._batch).loss

    def _backward(self) -> None:
        self._loss.backward()

    def _update(self) -> None:
        """Clipping, AdamW, what the model does after a step (its codebook), and the averaged weights."""
        clip_grad_norm_(self.model.parameters(), self.cfg.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.after_step()  # type: ignore[operator]
        self.average.update(1000)


@dataclass(frozen=True)
class StageTraining:
    """What the trainings of both stages share as contestants."""

    what: ClassVar[str]
    """What is trained."""

    world: Untrained
    """The shapes of the models."""
    stage: VQVAEStage | PriorStage
    """Batch and clips."""
    precision: str = "fp32"
    """fp32, or bf16 by autocast."""

    @property
    def name(self) -> str:
        return f"{self.what} {self.world.size} {self.world.vqvae.backbone.strides}"


@dataclass(frozen=True)
class TokenizerTraining(StageTraining):
    """A step of the tokenizer's training on clips of noise, which lie decoded in memory."""

    what: ClassVar[str] = "tokenizer"

    stage: VQVAEStage
    """Batch, clips and terms of the loss."""

    @property
    def frames(self) -> int:
        """Frames of a step."""
        return self.stage.train.batch * self.world.vqvae.clip_length(self.stage.latent_steps)

    def prepare(self, device: torch.device) -> TrainingStep:
        vqvae = self.world.load().vqvae
        model = TokenizerObjective(vqvae, self.stage.perceptual, self.stage.adversarial).to(device)
        length = vqvae.clip_length(self.stage.latent_steps)
        episode = torch.randint(256, (length + 16, 3, *self.world.size), dtype=torch.uint8)

        def draw() -> Batch:
            starts = torch.randint(17, (self.stage.train.batch,)).tolist()
            return {"frames": torch.stack([episode[start : start + length] for start in starts]).to(device)}

        return TrainingStep(model, self.stage.train, draw, autocast(self.precision, device))


@dataclass(frozen=True)
class PriorTraining(StageTraining):
    """A step of the prior's training on random codes."""

    what: ClassVar[str] = "prior"

    stage: PriorStage
    """Batch and clips."""

    @property
    def frames(self) -> int:
        """Frames whose codes a step predicts."""
        return self.stage.train.batch * (self.stage.latent_steps - 1) * self.world.vqvae.backbone.strides[0]

    def prepare(self, device: torch.device) -> TrainingStep:
        prior = self.world.load().prior.to(device)
        spec, b, t = prior.spec, self.stage.train.batch, self.stage.latent_steps
        episode = torch.randint(spec.codebook_size, (t + 16, *spec.grid))

        def draw() -> Batch:
            starts = torch.randint(17, (b,)).tolist()
            batch = {
                "codes": torch.stack([episode[start : start + t] for start in starts]),
                "actions": torch.rand(b, t - 1, spec.stride, spec.action_space.size),
                "rewards": torch.rand(b, t - 1),
                "terminated": torch.zeros(b, t - 1, dtype=torch.bool),
            }
            return {name: value.to(device) for name, value in batch.items()}

        return TrainingStep(prior, self.stage.train, draw, autocast(self.precision, device))


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """fp32 or bf16, as a context."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
