"""EMA vector quantizers: the codebook is a moving average of the latents that chose each code."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvideo.models.device import sent
from vqvideo.models.precision import single
from vqvideo.models.quantizers.base import (
    LATENTS_PER_CODE,
    Quantized,
    Quantizer,
    cluster_sums,
    enough_latents,
    fp32,
    k_means,
    nearest,
    pass_gradient,
)
from vqvideo.models.quantizers.config import CosineVQConfig, EMAVQConfig
from vqvideo.models.quantizers.ranks import broadcast_from_first, rows_over_ranks, share_of_rows, sum_over_ranks

_LARGEST_POOL = 2**16
"""Latents kept for revival; a loop that never calls `update` must not fill the memory."""


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
        self.register_buffer("_count", torch.zeros(cfg.codebook_size), persistent=False)
        self.register_buffer("_sum", torch.zeros_like(codebook), persistent=False)
        self._pool: Tensor | None = None
        self._step: int | None = None

    @property
    def latents_to_start(self) -> int:
        return LATENTS_PER_CODE * self.codebook_size

    @property
    def least_latents(self) -> int:
        return self.codebook_size

    def forward(self, z: Tensor) -> Quantized:
        with fp32(z):
            z = self.project(single(z))
            indices = self._indices(z)
            q = F.embedding(indices, self.codebook)
            if self.learns_from(z):
                self._observe(z.detach(), indices)
            loss = self.cfg.commitment * F.mse_loss(z, q)
            return Quantized(pass_gradient(z, q, self.cfg.gradient), indices, loss)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        with fp32(z):
            return self._indices(self.project(single(z)))

    def decode(self, indices: Tensor) -> Tensor:
        return F.embedding(indices, self.codebook)

    @torch.no_grad()
    def initialize(self, z: Tensor) -> None:
        """K-means start. Every rank must pass the same latents; those of rank 0 decide."""
        enough_latents(z, self.least_latents)
        z = self.project(single(z))
        centroids = k_means(z, self.codebook_size, rounds=10, generator=self._generator())
        centroids = broadcast_from_first(self.project(centroids))
        self.codebook.copy_(centroids)
        # On trial, like a revived code: one that the moving encoder leaves behind is replaced at once.
        self.ema_count.fill_(self.cfg.revive_below)
        self.ema_sum.copy_(centroids * self.cfg.revive_below)

    @torch.no_grad()
    def update(self) -> None:
        if self._pool is None:
            return
        candidates, self._pool = self._candidates(self._pool), None
        sum_over_ranks(self._count, self._sum, candidates)
        self._average()
        self._revive(candidates)
        self._count.zero_()
        self._sum.zero_()
        self.steps += 1
        self._step = self._steps() + 1

    def _indices(self, z: Tensor) -> Tensor:
        return nearest(z.detach().reshape(-1, self.dim), self.codebook).reshape(z.shape[:-1])

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
        mean = self.project(self.ema_sum / self.ema_count.clamp(min=1e-3)[:, None])
        self.codebook.copy_(torch.where(used[:, None], mean, self.codebook))

    def _candidates(self, pool: Tensor) -> Tensor:
        """Latents (r, d) for as many codes as may be revived, drawn from the pools of all ranks; this rank's share of
        them. Whether a code needs one is known on the device alone: to ask, or to gather all pools, would take longer.
        """
        limit = max(1, int(self.codebook_size * self.cfg.revive_at_most))
        # Keyed by the step and drawn over all ranks: every rank makes the same choice.
        pick = torch.randperm(rows_over_ranks(pool), generator=self._generator())[:limit]
        return share_of_rows(pool, sent(pick, pool.device))

    def _revive(self, candidates: Tensor) -> None:
        rows = self.ema_count.argsort(stable=True)[: len(candidates)]
        # As many rows in every step, of which those that are alive stay: with only the dead ones, their number would
        # have to be known.
        dead, threshold = self.ema_count[rows] < self.cfg.revive_below, self.cfg.revive_below
        self.codebook[rows] = torch.where(dead[:, None], candidates, self.codebook[rows])
        # Just at the threshold: a revived code stays only if it is used from now on.
        self.ema_count[rows] = torch.where(dead, threshold, self.ema_count[rows])
        self.ema_sum[rows] = torch.where(dead[:, None], threshold * candidates, self.ema_sum[rows])

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.cfg.seed * 1_000_003 + self._steps())

    def _steps(self) -> int:
        """`steps`, read from the device once after it was made or loaded."""
        if self._step is None:
            self._step = int(self.steps)
        return self._step

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._step = None


class CosineVQ(EMAVQ):
    """Latents and code vectors have length 1; what is left of a latent is its direction."""

    def __init__(self, cfg: CosineVQConfig) -> None:
        super().__init__(cfg)
        self.codebook.copy_(self.project(self.codebook))
        self.ema_sum.copy_(self.codebook)

    def project(self, z: Tensor) -> Tensor:
        return F.normalize(z, dim=-1, eps=1e-6)
