"""What the tokenizer's stage trains: the tokenizer, and optional terms that judge its reconstructions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from vqvideo.models.pixels import to_signed
from vqvideo.models.tokenizer.discriminator import AdversarialConfig, NoAdversary
from vqvideo.models.tokenizer.perceptual import NoPerceptual, PerceptualConfig
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.training.optimizers import Team


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

    def teams(self) -> dict[str, Team]:
        """The discriminator has an optimizer of its own, and is not averaged."""
        if self.adversary is None:
            return {}
        prefix, cfg = "adversary.discriminator.", self.adversary.cfg
        parameters = {name: p for name, p in self.named_parameters() if name.startswith(prefix)}
        return {"discriminator": Team(parameters, cfg.learning_rate, cfg.betas, averaged=False)}

    def after_step(self) -> None:
        """Called by the training loop after each optimizer step, on every rank."""
        self.vqvae.after_step()
        if self.adversary is not None:
            self.adversary.after_step()

    def window_metrics(self) -> dict[str, float]:
        """Usage of the codes since the last call, over all ranks. Collective."""
        return self.vqvae.quantizer.take_usage()

    def window(self) -> dict[str, Tensor]:
        """What `window_metrics` has counted up to now, over all ranks. Collective."""
        return {"codes": self.vqvae.quantizer.counted_codes()}

    def load_window(self, window: Mapping[str, Tensor]) -> None:
        """Goes on from `window`; on one rank only."""
        self.vqvae.quantizer.count_on(window["codes"])
