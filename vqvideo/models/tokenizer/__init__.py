"""The tokenizer: video to codes and back, and the terms that it is trained with."""

from typing import TYPE_CHECKING

from vqvideo.models import on_first_use
from vqvideo.models.tokenizer.backbone_config import (
    Backbone,
    BackboneConfig,
    ConvConfig,
    FactorisedConv,
    FrameConv,
    FullConv,
    StridedConv,
    TwoLevelConv,
)
from vqvideo.models.tokenizer.config import (
    VGG16,
    AdversarialConfig,
    EfficientNetLite0,
    NoAdversary,
    NoPerceptual,
    PatchDiscriminator3D,
    PerceptualConfig,
    ReconstructionConfig,
    VQVAEConfig,
)

if TYPE_CHECKING:
    from vqvideo.models.tokenizer.vqvae import VQVAE, VQVAEOutput

__getattr__ = on_first_use(__name__, {"vqvae": ("VQVAE", "VQVAEOutput")})
