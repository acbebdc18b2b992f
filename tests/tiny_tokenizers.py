"""Tiny tokenizers and clips for the tests: every registered backbone and quantizer, a second or less each."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from vqvideo.models.quantizers import (
    BSQConfig,
    BuiltInConfig,
    CosineVQConfig,
    EMAVQConfig,
    FSQConfig,
    GradientVQConfig,
    LFQConfig,
    Quantizer,
    ResidualVQConfig,
    SimVQConfig,
)
from vqvideo.models.tokenizer import Backbone, BackboneConfig, FactorisedConv, StridedConv, TwoLevelConv, VQVAEConfig
from vqvideo.models.tokenizer.vqvae import VQVAE

BACKBONES = get_args(BackboneConfig)
QUANTIZERS = get_args(BuiltInConfig)
STRIDES = (1, 2, 4)

SMALL: dict[type, dict[str, Any]] = {
    EMAVQConfig: {"codebook_size": 32, "dim": 4},
    CosineVQConfig: {"codebook_size": 32, "dim": 4},
    GradientVQConfig: {"codebook_size": 32, "dim": 4},
    SimVQConfig: {"codebook_size": 32, "dim": 4},
    FSQConfig: {"levels": (5, 4, 3)},
    LFQConfig: {"bits_per_token": 5},
    BSQConfig: {"bits_per_token": 5},
    ResidualVQConfig: {"stages": 2, "stage": EMAVQConfig(codebook_size=6, dim=4)},
}
"""Settings that make a quantizer small; one that is not listed is tested with its defaults."""


def name_of(value: Any) -> str:
    """Names of parametrised tests: classes by name."""
    return value.__name__ if isinstance(value, type) else str(value)


_WIDTHS = {"patch": 2, "widths": (8, 16), "encoder_blocks": 1, "decoder_blocks": 1}
SMALL_BACKBONES: dict[type, dict[str, Any]] = {
    StridedConv: {"width": 32, "blocks": 1},
    TwoLevelConv: {**_WIDTHS, "top_width": 16, "top_blocks": 1},
}
"""Settings that make a backbone small; one that is not listed has two levels, 8 and 16 channels wide."""


def small_backbone(kind: type[Backbone] = FactorisedConv, stride: int | None = None, **changes: Any) -> Backbone:
    """A small one of 4 x 4 pixels and `stride` frames per cell: 2 where the kind can. Skips the test of a stride that
    the kind has not.
    """
    if stride is None:
        stride = 2 if 2 in kind.time_strides else 1
    if stride not in kind.time_strides:
        pytest.skip(f"{kind.__name__} has no time stride {stride}")
    return kind(**{"strides": (stride, 4, 4), **SMALL_BACKBONES.get(kind, _WIDTHS), **changes})


def small_quantizer(kind: type = EMAVQConfig, **changes: Any) -> Any:
    """The config of a quantizer with few codes."""
    return kind(**{**SMALL.get(kind, {}), **changes})


def wake(model: nn.Module, seed: int = 0) -> nn.Module:
    """Makes parameters that start at zero random. Residual branches that end in zeros hide every leak."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def small_vqvae(
    backbone: type[Backbone] = FactorisedConv,
    quantizer: type = EMAVQConfig,
    stride: int | None = None,
    **settings: Any,
) -> VQVAE:
    """A tokenizer of 16 x 16 frames with awake branches, initialised on noise, in eval mode."""
    torch.manual_seed(0)
    cfg = VQVAEConfig(small_backbone(backbone, stride), small_quantizer(quantizer, **settings))
    model = cfg.build((16, 16))
    wake(model)
    codes_per_step = model.tokens
    batch = -(-model.quantizer.codebook_size // codes_per_step)
    model.initialize(noise(batch, 1, seed=99))
    return model.eval()


def noise(batch: int, frames: int, seed: int = 0) -> Tensor:
    """Clips (b, t, 3, 16, 16) uint8 of random blocks of 4 x 4 pixels."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (batch, frames, 3, 4, 4), generator=generator, dtype=torch.uint8)
    return blocks.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)


def moving_squares(batch: int, frames: int, seed: int = 0) -> Tensor:
    """Clips (b, t, 3, 16, 16) uint8: a bright square slides over a dark plain ground, in random colours."""
    generator = torch.Generator().manual_seed(seed)
    clips = torch.zeros(batch, frames, 3, 16, 16, dtype=torch.uint8)
    for clip in clips:
        ground = torch.randint(0, 100, (3, 1, 1), generator=generator)
        square = torch.randint(120, 256, (3, 1, 1), generator=generator)
        row, column = torch.randint(0, 11, (2,), generator=generator).tolist()
        clip[:] = ground
        for t, frame in enumerate(clip):
            left = (column + t) % 11
            frame[:, row : row + 6, left : left + 6] = square
    return clips


def latents(quantizer: Quantizer, count: int, seed: int = 0) -> Tensor:
    """Normal latents (count, d)."""
    return torch.randn(count, quantizer.dim, generator=torch.Generator().manual_seed(seed))


def ready(kind: type = EMAVQConfig, count: int = 2048, **changes: Any) -> Quantizer:
    """A small quantizer in training mode, initialised on normal latents."""
    quantizer = small_quantizer(kind, **changes).build()
    quantizer.initialize(latents(quantizer, max(count, quantizer.codebook_size), seed=99))
    return quantizer.train()


def observe(quantizer: Quantizer, z: Tensor) -> None:
    """A training pass: latents come from something that learns."""
    quantizer(z.detach().requires_grad_())
