"""The prior: spec, actions, backbone, heads, outcomes, and the model that joins them."""

from vqvideo.prior.conditioning import ActionEncoder, AdaLNConfig, AddConfig, ConditioningConfig, TokenConfig
from vqvideo.prior.heads import (
    AutoregressiveHeadConfig,
    HeadConfig,
    Likelihood,
    MaskedHeadConfig,
    ParallelHeadConfig,
)
from vqvideo.prior.outcomes import RewardHead
from vqvideo.prior.pooling import AttentionPoolingConfig, MeanPoolingConfig, PoolingConfig
from vqvideo.prior.prior import Prior, PriorConfig, PriorOutput, PriorState, PriorStep
from vqvideo.prior.spec import ActionStats, PriorSpec

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
