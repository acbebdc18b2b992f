"""Quantizers: continuous latents to codes and back, behind one contract.

A new one has its settings and its line of the union in `config.py`, and a file of its own with a class that keeps the
contract of `base.Quantizer`. One from elsewhere is passed as a module: see `outside`.
"""

from typing import TYPE_CHECKING

from vqvideo.models import on_first_use
from vqvideo.models.quantizers.config import (
    BSQConfig,
    BuiltInConfig,
    CosineVQConfig,
    EMAVQConfig,
    FSQConfig,
    GradientVQConfig,
    LFQConfig,
    OutsideConfig,
    QuantizerConfig,
    ResidualVQConfig,
    SimVQConfig,
)

if TYPE_CHECKING:
    from vqvideo.models.quantizers.base import (
        Quantized,
        Quantizer,
        cluster_sums,
        k_means,
        nearest,
        rotated,
        straight_through,
    )
    from vqvideo.models.quantizers.ema_vq import EMAVQ, CosineVQ
    from vqvideo.models.quantizers.fsq import FSQ
    from vqvideo.models.quantizers.gradient_vq import GradientVQ
    from vqvideo.models.quantizers.lookup_free import BSQ, LFQ
    from vqvideo.models.quantizers.outside import Adapted
    from vqvideo.models.quantizers.residual_vq import ResidualVQ
    from vqvideo.models.quantizers.sim_vq import SimVQ
    from vqvideo.models.quantizers.usage import CodeUsage

_HOMES = {
    "base": ("Quantized", "Quantizer", "cluster_sums", "k_means", "nearest", "rotated", "straight_through"),
    "ema_vq": ("CosineVQ", "EMAVQ"),
    "fsq": ("FSQ",),
    "gradient_vq": ("GradientVQ",),
    "lookup_free": ("BSQ", "LFQ"),
    "outside": ("Adapted",),
    "residual_vq": ("ResidualVQ",),
    "sim_vq": ("SimVQ",),
    "usage": ("CodeUsage",),
}
__getattr__ = on_first_use(__name__, _HOMES)
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
