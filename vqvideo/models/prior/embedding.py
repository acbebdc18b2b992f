"""Tokens into the backbone and out of it again: embedding, and patches of tokens that share one place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqvideo.models.precision import SinglePrecisionBuffers


class TokenEmbedding(SinglePrecisionBuffers):
    """Codes (b, t, n) to (b, t, n, d): a learned table plus a linear map of the tokenizer's code vectors, so that
    neighbouring codes begin as neighbours.
    """

    codebook: Tensor

    def __init__(self, codebook: Tensor, dim: int, tokens: int) -> None:
        super().__init__()
        self.register_buffer("codebook", codebook.clone())
        self.table = nn.Embedding(len(codebook), dim)
        self.geometry = nn.Linear(codebook.shape[1], dim)
        self.place = nn.Parameter(torch.randn(tokens, dim) * 0.02)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, codes: Tensor) -> Tensor:
        return self.vectors(codes) + self.place

    def vectors(self, codes: Tensor) -> Tensor:
        """Codes (...) to (..., d), without their place."""
        scale = self.codebook.std().clamp(min=1e-6)
        vectors = F.embedding(codes, self.codebook) / scale
        return self.table(codes) + self.geometry(vectors.to(self.place.dtype))


class Unpatched(nn.Module):
    """Every token has a place of its own in the backbone."""

    def fold(self, tokens: Tensor) -> Tensor:
        """(b, t, n, d) -> the same."""
        return tokens

    def unfold(self, places: Tensor, tokens: Tensor) -> Tensor:
        """(b, t, n, d) -> the same."""
        return places


class Patches(nn.Module):
    """Tokens of p x p patches share one place, which is p times as wide as they are: a wider backbone over fewer
    places costs the same and computes in larger matrices.

    Args:
        dim: width d of the backbone; tokens are d / p wide.
        patch: p.
        grid: tokens per latent step, in height and width.
    """

    def __init__(self, dim: int, patch: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.patch, self.rows = patch, grid[0] // patch
        width = dim // patch * patch**2
        self.down, self.up = nn.Linear(width, dim), nn.Linear(dim, width)

    def fold(self, tokens: Tensor) -> Tensor:
        """(b, t, n, d / p) -> (b, t, n / p^2, d)."""
        p, rows = self.patch, self.rows
        patches = rearrange(tokens, "b t (h p w q) e -> b t (h w) (p q e)", h=rows, p=p, q=p)
        return self.down(patches)

    def unfold(self, places: Tensor, tokens: Tensor) -> Tensor:
        """(b, t, n / p^2, d) -> (b, t, n, d / p). The embedded tokens are added: what stays needs no detour."""
        p, rows = self.patch, self.rows
        patches = self.up(places)
        return tokens + rearrange(patches, "b t (h w) (p q e) -> b t (h p w q) e", h=rows, p=p, q=p)
