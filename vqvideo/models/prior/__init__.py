"""The prior: spec, actions, backbone, heads, outcomes, and the model that joins them."""

from vqvideo.models.prior.conditioning import ActionEncoder, AdaLNConfig, AddConfig, ConditioningConfig, TokenConfig
from vqvideo.models.prior.config import PriorConfig
from vqvideo.models.prior.heads import (
    AutoregressiveHeadConfig,
    HeadConfig,
    Likelihood,
    MaskedHeadConfig,
    ParallelHeadConfig,
)
from vqvideo.models.prior.outcomes import RewardHead
from vqvideo.models.prior.pooling import AttentionPoolingConfig, MeanPoolingConfig, PoolingConfig
from vqvideo.models.prior.prior import Prior, PriorOutput, PriorState, PriorStep
from vqvideo.models.prior.spec import ActionStats, PriorSpec

__all__ = [
    "ActionEncoder",
    "ActionStats",
    "AdaLNConfig",
    "AddConfig",
    "AttentionPoolingConfig",
    "AutoregressiveHeadConfig",
    "ConditioningConfig",
    "HeadConfig",
    "Likelihood",
    "MaskedHeadConfig",
    "MeanPoolingConfig",
    "ParallelHeadConfig",
    "PoolingConfig",
    "Prior",
    "PriorConfig",
    "PriorOutput",
    "PriorSpec",
    "PriorState",
    "PriorStep",
    "RewardHead",
    "TokenConfig",
]
