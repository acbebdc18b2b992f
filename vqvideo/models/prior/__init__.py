"""The prior: spec, actions, backbone, heads, outcomes, and the model that joins them."""

from typing import TYPE_CHECKING

from vqvideo.models import on_first_use
from vqvideo.models.prior.config import (
    AdaLNConfig,
    AddConfig,
    AttentionPoolingConfig,
    AutoregressiveHeadConfig,
    ConditioningConfig,
    DrawnPoolingConfig,
    HeadConfig,
    MaskedHeadConfig,
    MeanPoolingConfig,
    ParallelHeadConfig,
    PixelCNNConfig,
    PoolingConfig,
    PriorConfig,
    Sampling,
    TokenConfig,
)
from vqvideo.models.prior.spec import ActionStats, PriorSpec

if TYPE_CHECKING:
    from vqvideo.models.prior.conditioning import ActionEncoder, AdaLN, Add, Token
    from vqvideo.models.prior.heads.autoregressive import AutoregressiveHead
    from vqvideo.models.prior.heads.base import Head, Likelihood
    from vqvideo.models.prior.heads.masked import MaskedHead
    from vqvideo.models.prior.heads.parallel import ParallelHead
    from vqvideo.models.prior.heads.pixel_cnn import PixelCNN
    from vqvideo.models.prior.outcomes import RewardHead
    from vqvideo.models.prior.pooling import AttentionPooling, DrawnPooling, MeanPooling
    from vqvideo.models.prior.prior import Prior, PriorOutput, PriorState, PriorStep

_HOMES = {
    "conditioning": ("ActionEncoder", "AdaLN", "Add", "Token"),
    "heads.autoregressive": ("AutoregressiveHead",),
    "heads.base": ("Head", "Likelihood"),
    "heads.masked": ("MaskedHead",),
    "heads.parallel": ("ParallelHead",),
    "heads.pixel_cnn": ("PixelCNN",),
    "outcomes": ("RewardHead",),
    "pooling": ("AttentionPooling", "DrawnPooling", "MeanPooling"),
    "prior": ("Prior", "PriorOutput", "PriorState", "PriorStep"),
}
__getattr__ = on_first_use(__name__, _HOMES)
