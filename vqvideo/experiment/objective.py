"""What the tokenizer's training minimises: its own loss with optional terms that judge its reconstructions; and the
tokenizer that it may go on from.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from vqvideo.errors import InputError
from vqvideo.models.pixels import to_signed
from vqvideo.models.tokenizer import AdversarialConfig, NoAdversary, NoPerceptual, PerceptualConfig
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.storage.checkpoint import load_into, model_tensors
from vqvideo.storage.records import flat_settings
from vqvideo.training.optimizers import ParameterGroup


class ObjectiveOutput(NamedTuple):
    """What a training pass returns."""

    loss: Tensor
    """Scalar to minimise."""
    metrics: dict[str, Tensor]
    """Scalars to log."""


class TokenizerObjective(nn.Module):
    """A tokenizer with the terms of its training. Without optional terms it trains as the tokenizer alone does."""

    def __init__(
        self,
        vqvae: VQVAE,
        perceptual: PerceptualConfig | None = None,
        adversarial: AdversarialConfig | None = None,
    ) -> None:
        super().__init__()
        self.vqvae = vqvae
        self.perceptual = (perceptual or NoPerceptual()).build()
        self.adversary = (adversarial or NoAdversary()).build()

    def forward(self, **batch: Tensor) -> ObjectiveOutput:
        """One training pass over a batch of the tokenizer's; the further terms look at its clips, not at its stills."""
        output = self.vqvae(**batch)
        loss, metrics = output.loss, dict(output.metrics)
        for term in (self.perceptual, self.adversary):
            if term is not None:
                added = term(output.reconstruction, to_signed(batch["frames"]))
                loss, metrics = loss + added.loss, metrics | added.metrics
        return ObjectiveOutput(loss, metrics)

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        """The discriminator has an optimizer of its own, and is not averaged."""
        if self.adversary is None:
            return {}
        prefix, cfg = "adversary.discriminator.", self.adversary.cfg
        parameters = {name: p for name, p in self.named_parameters() if name.startswith(prefix)}
        return {"discriminator": ParameterGroup(parameters, cfg.learning_rate, cfg.betas, averaged=False)}

    def after_step(self) -> None:
        """Called by the training loop after each optimizer step, on every rank."""
        self.vqvae.after_step()
        if self.adversary is not None:
            self.adversary.after_step()

    def interval_metrics(self) -> dict[str, float]:
        """Usage of the codes since the last call, over all ranks. Collective."""
        return self.vqvae.take_usage()


def continue_tokenizer(vqvae: VQVAE, folder: Path) -> str:
    """Copies weights, codebook and data statistics of another tokenizer into `vqvae`, in place of `initialize`.
    Returns the other one's fingerprint.

    Args:
        vqvae: changed in place.
        folder: the other tokenizer's.

    Raises:
        InputError: no tokenizer there, or one that is made or quantizes differently; `vqvae` is as before.
    """
    other = tokenizer_to_continue(vqvae, folder)
    load_into(vqvae, model_tensors(other), folder)
    return other.fingerprint()


def tokenizer_to_continue(vqvae: VQVAE, folder: Path) -> VQVAE:
    """The tokenizer of a folder. InputError unless `vqvae` can go on from it."""
    other = VQVAE.from_pretrained(folder)
    # Not by shapes alone: with other strides or levels the same weights can mean something else.
    there, here = _make(other), _make(vqvae)
    differing = [f"{name} {there.get(name)} -> {value}" for name, value in here.items() if there.get(name) != value]
    if differing:
        raise InputError(
            f"vqvae.init: the tokenizer of {folder} is made otherwise than the one here ({', '.join(differing)}): name "
            "one with the same settings of vqvae.model and the same frame size, or train anew without vqvae.init"
        )
    return other


def _make(vqvae: VQVAE) -> dict[str, str | int | float | bool]:
    """What its weights mean something for, by dotted name. The loss that they were trained with is no part of it."""
    settings = flat_settings(vqvae.config())
    return {
        name.removeprefix("model."): value
        for name, value in settings.items()
        if not name.startswith("model.reconstruction.")
    }
