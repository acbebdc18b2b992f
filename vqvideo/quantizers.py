"""Quantizers: continuous latents to codes and back, behind one contract.

Everything here runs in fp32 whatever the autocast around it: half precision picks wrong codes (1.5 % of the
nearest codes at k = 1024, d = 8 in bf16) and breaks the straight-through sum.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import log2, prod
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from vqvideo.errors import InputError

_LARGEST_POOL = 2**16
"""Latents kept for revival; a loop that never calls `update` must not fill the memory."""


class Quantized(NamedTuple):
    """What a quantizer makes of latents (..., d)."""

    values: Tensor
    """(..., d) fp32: the chosen code vectors, with a gradient straight through to the latents."""
    indices: Tensor
    """(...) int64 codes."""
    loss: Tensor
    """Scalar: what the quantizer adds to the training loss (a mean over latents)."""


class Quantizer(nn.Module, ABC):
    """The contract. A quantizer that learns from statistics gathers them in `forward` and applies them in
    `update`, which the training loop calls once per optimizer step on every rank.
    """

    dim: int
    """d, the width of the latents it takes."""
    codebook_size: int
    """k, the number of codes."""

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


def sum_over_ranks(*tensors: Tensor) -> None:
    """Adds up tensors over all ranks, in place; nothing in a single process."""
    if dist.is_available() and dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)


def gather_from_ranks(x: Tensor) -> Tensor:
    """Concatenates the equally long (n, d) of all ranks, in rank order, on every rank."""
    if not (dist.is_available() and dist.is_initialized()):
        return x
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def nearest(z: Tensor, codebook: Tensor, chunk: int = 4096) -> Tensor:
    """Indices (n,) of the codebook (k, d) rows nearest to (n, d).

    The largest z.e - |e|^2 / 2 is the smallest |z - e|^2, at well under half the time of the full distance;
    in chunks the (n, k) scores stay in the cache.
    """
    bias = -codebook.square().sum(dim=1) / 2
    return torch.cat([torch.addmm(bias, part, codebook.T).argmax(dim=1) for part in z.split(chunk)])


def cluster_sums(z: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Number (k,) and sum (k, d) of the rows of z (n, d) assigned to each of k clusters."""
    count = torch.bincount(indices, minlength=k).to(z.dtype)
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


@dataclass(frozen=True)
class EMAVQConfig:
    """Nearest code vector, codebook kept as moving averages (van den Oord et al. 2017, appendix A.1)."""

    codebook_size: int = 1024
    """Number of codes k."""
    dim: int = 8
    """Width d of a code vector; small widths keep the whole codebook in use."""
    decay: float = 0.95
    """Decay of the moving averages, per optimizer step."""
    commitment: float = 0.25
    """Weight beta of the commitment loss, a mean over all elements."""
    revive_below: float = 0.2
    """A code used less than this share of the average use is replaced by a latent of the batch; 0 never."""
    revive_at_most: float = 0.05
    """Largest share of the codebook replaced in one step."""
    seed: int = 0
    """Seed of k-means start and revival."""

    def __post_init__(self) -> None:
        if self.codebook_size < 2 or self.dim < 1:
            raise InputError(f"quantizer: codebook_size {self.codebook_size} and dim {self.dim}: too small")
        if not 0 <= self.decay < 1:
            raise InputError(f"quantizer.decay is {self.decay}, expected 0 <= decay < 1")

    def build(self) -> EMAVQ:
        return EMAVQ(self)


class EMAVQ(Quantizer):
    """EMA vector quantizer with k-means start and revival of dead codes.

    The statistics are summed over ranks before the average is taken, so all ranks hold the same codebook bit
    by bit. Revival follows the EMA write and resets count, sum and vector together; otherwise the old sums
    would overwrite a revived code at once.
    """

    codebook: Tensor
    ema_count: Tensor
    ema_sum: Tensor
    steps: Tensor
    initialized: Tensor
    _count: Tensor
    _sum: Tensor

    def __init__(self, cfg: EMAVQConfig) -> None:
        super().__init__()
        self.cfg, self.codebook_size, self.dim = cfg, cfg.codebook_size, cfg.dim
        generator = torch.Generator().manual_seed(cfg.seed)
        codebook = torch.randn(cfg.codebook_size, cfg.dim, generator=generator)
        self.register_buffer("codebook", codebook)
        self.register_buffer("ema_count", torch.ones(cfg.codebook_size))
        self.register_buffer("ema_sum", codebook.clone())
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))
        self.register_buffer("_count", torch.zeros(cfg.codebook_size), persistent=False)
        self.register_buffer("_sum", torch.zeros_like(codebook), persistent=False)
        self._pool: Tensor | None = None

    def forward(self, z: Tensor) -> Quantized:
        with fp32(z):
            z = z.float()
            indices = self.encode(z)
            q = F.embedding(indices, self.codebook)
            # Training alone is not enough: a frozen tokenizer may be put into training mode along with a prior.
            if self.training and z.requires_grad:
                self._observe(z.detach(), indices)
            loss = self.cfg.commitment * F.mse_loss(z, q)
            return Quantized(straight_through(z, q), indices, loss)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        with fp32(z):
            return nearest(z.float().reshape(-1, self.dim), self.codebook).reshape(z.shape[:-1])

    def decode(self, indices: Tensor) -> Tensor:
        return F.embedding(indices, self.codebook)

    @torch.no_grad()
    def initialize(self, z: Tensor) -> None:
        """K-means start. Every rank must pass the same latents; those of rank 0 decide."""
        if len(z) < self.codebook_size:
            raise InputError(
                f"{len(z)} latents to start {self.codebook_size} codes from: give more clips or a smaller codebook"
            )
        z = z.float()
        centroids = k_means(z, self.codebook_size, rounds=10, generator=self._generator())
        if dist.is_available() and dist.is_initialized():
            dist.broadcast(centroids, src=0)
        self.codebook.copy_(centroids)
        # On trial, like a revived code: one that the moving encoder leaves behind is replaced at once.
        self.ema_count.fill_(self.cfg.revive_below)
        self.ema_sum.copy_(centroids * self.cfg.revive_below)
        self.initialized.fill_(True)

    @torch.no_grad()
    def update(self) -> None:
        if self._pool is None:
            return
        pool, self._pool = gather_from_ranks(self._pool), None
        sum_over_ranks(self._count, self._sum)
        self._average()
        self._revive(pool)
        self._count.zero_()
        self._sum.zero_()
        self.steps += 1

    def _observe(self, z: Tensor, indices: Tensor) -> None:
        z = z.reshape(-1, self.dim)
        count, total = cluster_sums(z, indices.reshape(-1), self.codebook_size)
        self._count += count
        self._sum += total
        # All micro batches of an optimizer step, so that accumulation revives as one large batch does.
        self._pool = z if self._pool is None else torch.cat([self._pool, z])[-_LARGEST_POOL:]

    def _average(self) -> None:
        # Counts as shares of the average use, so that thresholds do not depend on the batch size.
        share = self.codebook_size / self._count.sum()
        self.ema_count.lerp_(self._count * share, 1 - self.cfg.decay)
        self.ema_sum.lerp_(self._sum * share, 1 - self.cfg.decay)
        # A code without use keeps its place: smoothed counts would pull it to the origin.
        used = self.ema_count > 1e-3
        mean = self.ema_sum / self.ema_count.clamp(min=1e-3)[:, None]
        self.codebook.copy_(torch.where(used[:, None], mean, self.codebook))

    def _revive(self, pool: Tensor) -> None:
        dead = self.ema_count < self.cfg.revive_below
        limit = max(1, int(self.codebook_size * self.cfg.revive_at_most))
        rows = self.ema_count.masked_fill(~dead, torch.inf).argsort()[: min(limit, len(pool))]
        rows = rows[dead[rows]]
        # Step-keyed and drawn from the pool of all ranks: every rank makes the same choice.
        pick = torch.randperm(len(pool), generator=self._generator())[: len(rows)].to(pool.device)
        self.codebook[rows] = pool[pick]
        # Just at the threshold: it stays only if it is used from now on.
        self.ema_count[rows] = self.cfg.revive_below
        self.ema_sum[rows] = self.cfg.revive_below * pool[pick]

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.cfg.seed * 1_000_003 + int(self.steps))


@dataclass(frozen=True)
class FSQConfig:
    """Finite scalar quantization (Mentzer et al. 2023, arXiv:2309.15505): no codebook to collapse."""

    levels: tuple[int, ...] = (8, 5, 5, 5)
    """Number of values of each latent dimension; k is their product, d their number."""

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 2:
            raise InputError(f"quantizer.levels {self.levels}: expected a list of numbers of at least 2")

    def build(self) -> FSQ:
        return FSQ(self)


class FSQ(Quantizer):
    """Bounds each dimension with tanh and rounds it to one of its levels."""

    half_range: Tensor
    offset: Tensor
    levels: Tensor
    shift: Tensor
    basis: Tensor

    def __init__(self, cfg: FSQConfig) -> None:
        super().__init__()
        self.cfg, self.dim, self.codebook_size = cfg, len(cfg.levels), prod(cfg.levels)
        levels = torch.tensor(cfg.levels)
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        basis = torch.tensor([prod(cfg.levels[:i]) for i in range(self.dim)])
        self.register_buffer("half_range", half, persistent=False)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("shift", torch.atanh(offset / half), persistent=False)
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("levels", levels, persistent=False)

    def forward(self, z: Tensor) -> Quantized:
        with fp32(z):
            bounded = self._bound(z.float())
            digits = bounded.detach().round()
            values = straight_through(bounded, digits) / (self.levels // 2)
            return Quantized(values, self._combine(digits), values.new_zeros(()))

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        with fp32(z):
            return self._combine(self._bound(z.float()).round())

    def decode(self, indices: Tensor) -> Tensor:
        digits = indices[..., None] // self.basis % self.levels
        return (digits - self.levels // 2) / (self.levels // 2)

    def _bound(self, z: Tensor) -> Tensor:
        """Equation of section 3 of the paper; even numbers of levels are shifted by half a step."""
        return torch.tanh(z + self.shift) * self.half_range - self.offset

    def _combine(self, digits: Tensor) -> Tensor:
        # Each digit becomes an integer before they are combined: sums in half precision would round.
        return ((digits.long() + self.levels // 2) * self.basis).sum(dim=-1)


QuantizerConfig = EMAVQConfig | FSQConfig
