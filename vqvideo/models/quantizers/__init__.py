"""Quantizers: continuous latents to codes and back, behind one contract, one file per kind.

A new one is a class with the contract of `base.Quantizer`, a frozen config with `build`, and its line in the union.
One from elsewhere is passed as a module: see `outside`.
"""

from vqvideo.models.quantizers.base import (
    Quantized,
    Quantizer,
    cluster_sums,
    k_means,
    nearest,
    rotated,
    straight_through,
)
from vqvideo.models.quantizers.ema_vq import EMAVQ, CosineVQ, CosineVQConfig, EMAVQConfig
from vqvideo.models.quantizers.fsq import FSQ, FSQConfig
from vqvideo.models.quantizers.gradient_vq import GradientVQ, GradientVQConfig
from vqvideo.models.quantizers.lookup_free import BSQ, LFQ, BSQConfig, LFQConfig
from vqvideo.models.quantizers.outside import Adapted, OutsideConfig
from vqvideo.models.quantizers.residual_vq import ResidualVQ, ResidualVQConfig
from vqvideo.models.quantizers.sim_vq import SimVQ, SimVQConfig
from vqvideo.models.quantizers.usage import CodeUsage

BuiltInConfig = (
    EMAVQConfig | CosineVQConfig | GradientVQConfig | FSQConfig | LFQConfig | BSQConfig | SimVQConfig | ResidualVQConfig
)
"""The quantizers that can be built from their settings."""
QuantizerConfig = BuiltInConfig | OutsideConfig
"""What the settings of a tokenizer may say."""

__all__ = [
    "BSQ",
    "EMAVQ",
    "FSQ",
    "LFQ",
    "Adapted",
    "BSQConfig",
    "BuiltInConfig",
    "CodeUsage",
    "CosineVQ",
    "CosineVQConfig",
    "EMAVQConfig",
    "FSQConfig",
    "GradientVQ",
    "GradientVQConfig",
    "LFQConfig",
    "OutsideConfig",
    "Quantized",
    "Quantizer",
    "QuantizerConfig",
    "ResidualVQ",
    "ResidualVQConfig",
    "SimVQ",
    "SimVQConfig",
    "cluster_sums",
    "k_means",
    "nearest",
    "rotated",
    "straight_through",
]
