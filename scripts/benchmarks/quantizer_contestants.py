"""What is compared: our EMA quantizer and its parts beside vector-quantize-pytorch and the usual distances.

Both quantizers get the same latents and the same codebook, learn by moving averages with the same decay, pass gradients
straight through, and start without k-means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from vqvideo.models.quantizers import EMAVQ, EMAVQConfig, nearest
from vqvideo.scripts.benchmarks.timing import Work

OURS, PEER = "EMAVQ", "vector-quantize-pytorch"


@dataclass(frozen=True)
class Problem:
    """How much is to be quantized."""

    vectors: int = 16_384
    """n latents per call."""
    codes: int = 1024
    """k."""
    dim: int = 8
    """d."""
    seed: int = 0
    """Of latents and codebook."""

    def __str__(self) -> str:
        return f"{self.vectors:,} x {self.codes:,} x {self.dim}"

    def data(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Normal latents (n, d) and codebook (k, d)."""
        generator = torch.Generator().manual_seed(self.seed)
        z = torch.randn(self.vectors, self.dim, generator=generator)
        return z.to(device), torch.randn(self.codes, self.dim, generator=generator).to(device)


@dataclass(frozen=True)
class Entry:
    """A contestant at one kind of work."""

    work: str
    """Key of `WORKS`."""
    name: str
    """Key of `WORKS[work]`."""
    problem: Problem
    """What it quantizes."""

    def prepare(self, device: torch.device) -> Work:
        return WORKS[self.work][self.name](*self.problem.data(device))


def entries(problem: Problem, work: str, *, with_peer: bool) -> list[Entry]:
    """All contestants at a kind of work, ours first."""
    return [Entry(work, name, problem) for name in WORKS[work] if with_peer or name != PEER]


def peer_is_installed() -> bool:
    """Whether vector-quantize-pytorch can be measured."""
    return find_spec("vector_quantize_pytorch") is not None


def _nearest(z: Tensor, codebook: Tensor) -> Work:
    """z.e - |e|^2 / 2, in chunks."""
    return lambda: nearest(z, codebook)


def _cdist(z: Tensor, codebook: Tensor) -> Work:
    return lambda: torch.cdist(z, codebook).argmin(dim=1)


def _full_distance(z: Tensor, codebook: Tensor) -> Work:
    """|z|^2 - 2 z.e + |e|^2."""

    def search() -> Tensor:
        distance = z.square().sum(1, keepdim=True) - 2 * z @ codebook.T + codebook.square().sum(1)
        return distance.argmin(dim=1)

    return search


def _our_codes(z: Tensor, codebook: Tensor) -> Work:
    quantizer = _ours(codebook, revival=False).eval()
    return torch.no_grad()(lambda: quantizer(z).indices)


def _peer_codes(z: Tensor, codebook: Tensor) -> Work:
    quantizer = _peer(z, codebook, revival=False).eval()
    return torch.no_grad()(lambda: quantizer(z[None])[1][0])


def _our_step(z: Tensor, codebook: Tensor, *, revival: bool) -> Work:
    """Forward, backward to the latents, EMA update."""
    quantizer = _ours(codebook, revival=revival).train()

    def step() -> Tensor:
        latents = z.clone().requires_grad_()
        quantized = quantizer(latents)
        (quantized.values.sum() + quantized.loss).backward()
        quantizer.update()
        return quantized.indices

    return step


def _peer_step(z: Tensor, codebook: Tensor, *, revival: bool) -> Work:
    """Forward with its EMA update, backward to the latents."""
    quantizer = _peer(z, codebook, revival=revival).train()

    def step() -> Tensor:
        latents = z[None].clone().requires_grad_()
        values, indices, loss = quantizer(latents)
        (values.sum() + loss.sum()).backward()
        return indices[0]

    return step


def _ours(codebook: Tensor, *, revival: bool) -> EMAVQ:
    revive = EMAVQConfig().revive_below if revival else 0.0
    k, d = codebook.shape
    quantizer = EMAVQ(EMAVQConfig(codebook_size=k, dim=d, revive_below=revive)).to(codebook.device)
    quantizer.codebook.copy_(codebook)
    quantizer.ema_sum.copy_(codebook)
    return quantizer


def _peer(z: Tensor, codebook: Tensor, *, revival: bool) -> Any:
    from vector_quantize_pytorch import VectorQuantize

    ours, (k, d) = EMAVQConfig(), codebook.shape
    quantizer = VectorQuantize(
        dim=d,
        codebook_size=k,
        decay=ours.decay,
        commitment_weight=ours.commitment,
        rotation_trick=False,
        # Its own unit: a smoothed count of uses. The average use of a code is n / k, so this is our share of it.
        threshold_ema_dead_code=ours.revive_below * len(z) / k if revival else 0,
    ).to(codebook.device)
    quantizer.codebook = codebook
    quantizer._codebook.embed_avg.copy_(codebook[None])
    return quantizer


WORKS: dict[str, dict[str, Callable[[Tensor, Tensor], Work]]] = {
    "nearest code": {"nearest": _nearest, "torch.cdist": _cdist, "full squared distance": _full_distance},
    "codes and vectors": {OURS: _our_codes, PEER: _peer_codes},
    "training step": {OURS: partial(_our_step, revival=False), PEER: partial(_peer_step, revival=False)},
    "training step, dead codes replaced": {
        OURS: partial(_our_step, revival=True),
        PEER: partial(_peer_step, revival=True),
    },
}
"""Kinds of work, and for each its contestants, ours first: what prepares latents and codebook to be called."""
