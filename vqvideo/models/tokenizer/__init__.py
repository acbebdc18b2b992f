"""The tokenizer: video to codes and back, and the terms that it is trained with."""

from typing import TYPE_CHECKING

from vqvideo.models import on_first_use
from vqvideo.models.tokenizer.config import (
    VGG16,
    AdversarialConfig,
    BackboneConfig,
    ConvConfig,
    EfficientNetLite0,
    FactorisedConv,
    FrameConv,
    FullConv,
    NoAdversary,
    NoPerceptual,
    PatchDiscriminator3D,
    PerceptualConfig,
    ReconstructionConfig,
    VQVAEConfig,
)

if TYPE_CHECKING:
    from vqvideo.models.tokenizer.causal import TimeState
    from vqvideo.models.tokenizer.discriminator import AdversarialTerm
    from vqvideo.models.tokenizer.features import Lite0Features, VGG16Features
    from vqvideo.models.tokenizer.perceptual import PerceptualTerm
    from vqvideo.models.tokenizer.vqvae import VQVAE, VQVAEOutput

_HOMES = {
    "causal": ("TimeState",),
    "discriminator": ("AdversarialTerm",),
    "features": ("Lite0Features", "VGG16Features"),
    "perceptual": ("PerceptualTerm",),
    "vqvae": ("VQVAE", "VQVAEOutput"),
}
__getattr__ = on_first_use(__name__, _HOMES)
