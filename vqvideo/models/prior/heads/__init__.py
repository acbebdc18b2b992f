"""Heads: how the tokens of a latent step are drawn, one class each, all on the same backbone."""

from vqvideo.models.prior.heads.autoregressive import AutoregressiveHead, AutoregressiveHeadConfig
from vqvideo.models.prior.heads.base import Head, HeadOutput, Likelihood
from vqvideo.models.prior.heads.masked import MaskedHead, MaskedHeadConfig
from vqvideo.models.prior.heads.parallel import ParallelHead, ParallelHeadConfig

__all__ = [
    "AutoregressiveHead",
    "AutoregressiveHeadConfig",
    "Head",
    "HeadConfig",
    "HeadOutput",
    "Likelihood",
    "MaskedHead",
    "MaskedHeadConfig",
    "ParallelHead",
    "ParallelHeadConfig",
]

HeadConfig = ParallelHeadConfig | MaskedHeadConfig | AutoregressiveHeadConfig
