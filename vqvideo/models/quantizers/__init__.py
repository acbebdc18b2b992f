"""Quantizers: continuous latents to codes and back, behind one contract.

Each is a class that keeps the contract of `base.Quantizer`; how to add one is said in `config`. One from elsewhere is
passed as a module: see `outside`.
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
    *(name for name in globals() if name.endswith("Config")),
    *(name for names in _HOMES.values() for name in names),
]
