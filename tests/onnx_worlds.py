"""Tiny worlds and their exports, for the tests of ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_models import FIVE, make_spec, tiny_prior, tiny_vqvae
from torch import Tensor

from vqvideo.export import OnnxWorld
from vqvideo.export.writing import export_world
from vqvideo.models.imagination import EnvFacts, Imaginer
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.spaces import ActionSpace


def world_of(vqvae: VQVAE | None = None, space: ActionSpace = FIVE, **settings: Any) -> Imaginer:
    """A shaken world of two or more temporal layers, on the tokenizer that is given."""
    vqvae = vqvae or tiny_vqvae()
    codes, dim = vqvae.quantizer.codebook_size, vqvae.quantizer.dim
    spec = make_spec(space, grid=vqvae.grid, codebook_size=codes, code_dim=dim, stride=vqvae.stride)
    spec = spec.__class__(**{**vars(spec), "tokenizer": vqvae.fingerprint()})
    world = Imaginer(vqvae, tiny_prior(spec, vqvae.codebook, **settings), EnvFacts("Tiny-v0", 10.0, 1))
    return world.eval().requires_grad_(False)


def exported(world: Imaginer, folder: Path, **options: Any) -> OnnxWorld:
    """The same world in ONNX Runtime."""
    export_world(world, folder, **options)
    return OnnxWorld(folder)


def some_actions(world: Imaginer, batch: int, steps: int, seed: int = 0) -> Tensor:
    """Flat actions (b, s t, a) of all kinds of the space."""
    generator = torch.Generator().manual_seed(seed)
    length, columns = world.stride * steps, world.action_space.columns
    u = torch.rand(batch, length, len(columns), generator=generator, dtype=torch.float64)
    low, high = (torch.tensor([getattr(c, end) for c in columns], dtype=torch.float64) for end in ("low", "high"))
    whole = torch.from_numpy(world.action_space.limits.whole)
    return torch.where(whole, (low + u * (high - low)).round(), low + u * (high - low)).float()
