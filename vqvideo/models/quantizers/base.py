"""The contract of all quantizers, and what several of them are made of.

Everything here runs in fp32 whatever the autocast around it, also in a model of half precision (in one of double
precision, in that): half precision picks wrong codes (1.5 % of the nearest codes at k = 1024, d = 8 in bf16) and breaks
the straight-through sum.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import log2
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvideo.errors import InputError
from vqvideo.models.precision import SinglePrecision, single
from vqvideo.models.quantizers.config import Gradient


class Quantized(NamedTuple):
    """What a quantizer makes of latents (..., d)."""

    values: Tensor
    """(..., d) fp32 or fp64: the chosen code vectors, with a gradient straight through to the latents."""
    indices: Tensor
    """(...) int64 codes."""
    loss: Tensor
    """Scalar: what the quantizer adds to the training loss (a mean over latents)."""


class Quantizer(SinglePrecision, ABC):
    """The contract. A quantizer that learns from statistics gathers them in `forward` and applies them in
    `update`, which the training loop calls once per optimizer step on every rank.
    """

    dim: int
    """d, the width of the latents it takes."""
    codebook_size: int
    """k, the number of codes."""

    def learns_from(self, z: Tensor) -> bool:
        """Whether statistics of latents z are to be gathered. Training mode alone is not enough: a frozen tokenizer may
        be put into training mode along with a prior.
        """
        return self.training and z.requires_grad

    @property
    def latents_to_start(self) -> int:
        """How many latents `initialize` wants; any number by default."""
        return 0

    @property
    def least_latents(self) -> int:
        """How few latents `initialize` refuses to start from: fewer than this. None by default."""
        return 0

    @property
    def bits(self) -> float:
        """Bits per token: log2 k."""
        return log2(self.codebook_size)

    @abstractmethod
    def forward(self, z: Tensor) -> Quantized:
        """Quantizes latents (..., d) for training."""

    @abstractmethod
    def encode(self, z: Tensor) -> Tensor:
        """Codes (...) int64 of latents (..., d)."""

    @abstractmethod
    def decode(self, indices: Tensor) -> Tensor:
        """Code vectors (..., d) of codes (...)."""

    def project(self, z: Tensor) -> Tensor:
        """Latents (..., d) as they are compared with code vectors; by default as they are."""
        return z

    @torch.no_grad()
    def distance(self, z: Tensor, indices: Tensor) -> Tensor:
        """How far latents (..., d) are from the code vectors of their codes (...): the mean square over d, (...), where
        `project` brings the latents. Of bits and levels it is the distance to the value that each is rounded to.
        """
        with fp32(z):
            return (self.project(single(z)) - self.decode(indices)).square().mean(dim=-1)

    @torch.no_grad()
    def initialize(self, z: Tensor) -> None:
        """Fits the codebook to first latents (n, d), the same on every rank. Nothing to do by default."""

    @torch.no_grad()
    def update(self) -> None:
        """Applies the statistics of the forward passes since the last call. Nothing to do by default."""

    def check(self, indices: Tensor) -> None:
        """Raises InputError if a code is outside 0 .. k - 1."""
        if indices.numel() and (indices.min() < 0 or indices.max() >= self.codebook_size):
            low, high = int(indices.min()), int(indices.max())
            raise InputError(f"codes {low}..{high} found, expected 0..{self.codebook_size - 1}")


def fp32(x: Tensor) -> torch.autocast:
    """A context without autocast on x's own device: `autocast('cuda', enabled=False)` does nothing on a CPU."""
    return torch.autocast(device_type=x.device.type, enabled=False)


def straight_through(z: Tensor, q: Tensor) -> Tensor:
    """q in the forward pass, the identity to z in the backward pass (van den Oord et al. 2017)."""
    return z + (q - z).detach()


def rotated(z: Tensor, q: Tensor) -> Tensor:
    """q in the forward pass; backwards the gradient is turned and scaled as z is turned and scaled into q.

    Fifty et al. 2024, "Restructuring vector quantization with the rotation trick", arXiv:2410.06424, section 4.2: with
    unit vectors u of z and v of q and r = (u + v) / |u + v|, the map is |q| / |z| (z - 2 r (r.z) + 2 v (u.z)), held
    constant. Norms are clamped: the map is undefined at zero and for opposite vectors.
    """
    length = z.detach().norm(dim=-1, keepdim=True).clamp(min=1e-6)
    u, v = z.detach() / length, F.normalize(q.detach(), dim=-1, eps=1e-6)
    r = F.normalize(u + v, dim=-1, eps=1e-6)
    turned = z - 2 * r * (r * z).sum(dim=-1, keepdim=True) + 2 * v * (u * z).sum(dim=-1, keepdim=True)
    scaled = turned * (q.detach().norm(dim=-1, keepdim=True) / length)
    # The value is exactly q: rounding in the rotation must not make it a vector that no code stands for.
    return straight_through(scaled, q)


def pass_gradient(z: Tensor, q: Tensor, how: Gradient) -> Tensor:
    """q, with the gradient of `how` back to z."""
    return rotated(z, q) if how == "rotation" else straight_through(z, q)


LATENTS_PER_CODE = 8
"""Latents per code that a k-means start wants, so that there is something to average."""


def enough_latents(z: Tensor, k: int) -> None:
    """Raises InputError if latents (n, d) are too few to start k codes from."""
    if len(z) < k:
        raise InputError(f"{len(z)} latents to start {k} codes from: give more clips or a smaller codebook")


def nearest(z: Tensor, codebook: Tensor, chunk: int | None = None) -> Tensor:
    """Indices (n,) of the codebook (k, d) rows nearest to (n, d); of equally near ones the first.

    The largest z.e - |e|^2 / 2 is the smallest |z - e|^2, at well under half the time of the full distance.
    By default as many rows at once as keep the (rows, k) scores in a CPU's cache, or a GPU busy.
    """
    z, codebook = z.detach(), codebook.detach()
    chunk = chunk or (512 if z.device.type == "cpu" else 2**14)
    bias = -codebook.square().sum(dim=1) / 2
    # An exported graph takes any number of rows, and makes no parts of them.
    if torch.jit.is_tracing():
        return (z @ codebook.T + bias).argmax(dim=1)
    indices = torch.empty(len(z), dtype=torch.int64, device=z.device)
    # One buffer for all chunks: new ones fragment the heap, up to the size of all (n, k) scores.
    scores = z.new_empty(min(chunk, len(z)), len(codebook))
    for part, found in zip(z.split(chunk), indices.split(chunk), strict=True):
        found.copy_(_first_largest(torch.addmm(bias, part, codebook.T, out=scores[: len(part)])))
    return indices


def _first_largest(scores: Tensor, group: int = 64) -> Tensor:
    """argmax over the last of (n, k), the first of equal ones. A CPU takes maxima in vectors but arguments one by one:
    so the group first, by its maximum, and then the place in the group.
    """
    n, k = scores.shape
    if scores.device.type != "cpu" or k % group:
        return scores.argmax(dim=1)
    groups = scores.view(n, k // group, group)
    best = groups.amax(dim=2).argmax(dim=1)
    return best * group + groups[torch.arange(n), best].argmax(dim=1)


def cluster_sums(z: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Number (k,) and sum (k, d) of the rows of z (n, d) assigned to each of k clusters."""
    # Not bincount, for which a GPU is waited for.
    count = z.new_zeros(k).index_add_(0, indices, z.new_ones(len(z)))
    return count, z.new_zeros(k, z.shape[1]).index_add_(0, indices, z)


def k_means(z: Tensor, k: int, rounds: int, generator: torch.Generator) -> Tensor:
    """Centroids (k, d) of (n, d). An empty cluster starts anew at a random row. Needs n >= k."""
    pick = torch.randperm(len(z), generator=generator)[:k].to(z.device)
    centroids = z[pick].clone()
    for _ in range(rounds):
        count, total = cluster_sums(z, nearest(z, centroids), k)
        anew = z[torch.randint(len(z), (k,), generator=generator).to(z.device)]
        centroids = torch.where(count[:, None] > 0, total / count.clamp(min=1)[:, None], anew)
    return centroids
