"""What is compared: our EMA quantizer and its parts beside vector-quantize-pytorch and the usual distances.

Both quantizers get the same latents and the same codebook, learn by moving averages with the same decay, pass gradients
straight through, and start without k-means.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from vqvideo.models.quantizers import EMAVQ, EMAVQConfig, nearest
from vqvideo.scripts.benchmarks.timing import Contestant, Work

PEER = "vector-quantize-pytorch"


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
class _Entry:
    problem: Problem
    """What it quantizes."""
    revival: bool = False
    """Whether dead codes are replaced (in training)."""
    name: str = ""
    """Shown in tables."""


@dataclass(frozen=True)
class Search(_Entry):
    """Ours: z.e - |e|^2 / 2, in chunks."""

    name: str = "nearest"

    def prepare(self, device: torch.device) -> Work:
        z, codebook = self.problem.data(device)
        return lambda: nearest(z, codebook)


@dataclass(frozen=True)
class FullDistance(_Entry):
    """|z|^2 - 2 z.e + |e|^2 and argmin."""

    name: str = "full squared distance"

    def prepare(self, device: torch.device) -> Work:
        z, codebook = self.problem.data(device)

        def search() -> Tensor:
            distance = z.square().sum(1, keepdim=True) - 2 * z @ codebook.T + codebook.square().sum(1)
            return distance.argmin(dim=1)

        return search


@dataclass(frozen=True)
class Cdist(_Entry):
    """torch.cdist and argmin."""

    name: str = "torch.cdist"

    def prepare(self, device: torch.device) -> Work:
        z, codebook = self.problem.data(device)
        return lambda: torch.cdist(z, codebook).argmin(dim=1)


@dataclass(frozen=True)
class OurEncode(_Entry):
    """Codes and code vectors, without learning."""

    name: str = "EMAVQ"

    def prepare(self, device: torch.device) -> Work:
        z, _ = self.problem.data(device)
        quantizer = _ours(self, device).eval()
        return torch.no_grad()(lambda: quantizer(z).indices)


@dataclass(frozen=True)
class PeerEncode(_Entry):
    """Codes and code vectors, without learning."""

    name: str = PEER

    def prepare(self, device: torch.device) -> Work:
        z, _ = self.problem.data(device)
        quantizer = _peer(self, device).eval()
        return torch.no_grad()(lambda: quantizer(z[None])[1][0])


@dataclass(frozen=True)
class OurStep(_Entry):
    """Forward, backward to the latents, EMA update."""

    name: str = "EMAVQ"

    def prepare(self, device: torch.device) -> Work:
        z, _ = self.problem.data(device)
        quantizer = _ours(self, device).train()

        def step() -> Tensor:
            latents = z.clone().requires_grad_()
            quantized = quantizer(latents)
            (quantized.values.sum() + quantized.loss).backward()
            quantizer.update()
            return quantized.indices

        return step


@dataclass(frozen=True)
class PeerStep(_Entry):
    """Forward with its EMA update, backward to the latents."""

    name: str = PEER

    def prepare(self, device: torch.device) -> Work:
        z, _ = self.problem.data(device)
        quantizer = _peer(self, device).train()

        def step() -> Tensor:
            latents = z[None].clone().requires_grad_()
            values, indices, loss = quantizer(latents)
            (values.sum() + loss.sum()).backward()
            return indices[0]

        return step


def _ours(entry: _Entry, device: torch.device) -> EMAVQ:
    problem = entry.problem
    revive = EMAVQConfig().revive_below if entry.revival else 0.0
    quantizer = EMAVQConfig(codebook_size=problem.codes, dim=problem.dim, revive_below=revive).build().to(device)
    _, codebook = problem.data(device)
    quantizer.codebook.copy_(codebook)
    quantizer.ema_sum.copy_(codebook)
    return quantizer


def _peer(entry: _Entry, device: torch.device) -> Any:
    from vector_quantize_pytorch import VectorQuantize

    problem, ours = entry.problem, EMAVQConfig()
    quantizer = VectorQuantize(
        dim=problem.dim,
        codebook_size=problem.codes,
        decay=ours.decay,
        commitment_weight=ours.commitment,
        rotation_trick=False,
        # Its own unit: a smoothed count of uses. The average use of a code is n / k, so this is our share of it.
        threshold_ema_dead_code=ours.revive_below * problem.vectors / problem.codes if entry.revival else 0,
    ).to(device)
    _, codebook = problem.data(device)
    quantizer.codebook = codebook
    quantizer._codebook.embed_avg.copy_(codebook[None])
    return quantizer


@dataclass(frozen=True)
class Part:
    """Contestants that do the same work; the first one is ours."""

    title: str
    """What they do."""
    entries: tuple[Contestant, ...]
    """Contestants."""


def parts(problem: Problem, *, with_peer: bool) -> list[Part]:
    """All that is measured of one problem."""
    listed = [
        Part("nearest code", (Search(problem), Cdist(problem), FullDistance(problem))),
        Part("codes and vectors", (OurEncode(problem), PeerEncode(problem))),
        Part("training step", (OurStep(problem), PeerStep(problem))),
        Part("training step, dead codes replaced", (OurStep(problem, True), PeerStep(problem, True))),
    ]
    kept = [Part(p.title, tuple(e for e in p.entries if with_peer or e.name != PEER)) for p in listed]
    return [part for part in kept if part.entries]


def peer_is_installed() -> bool:
    """Whether vector-quantize-pytorch can be measured."""
    return find_spec("vector_quantize_pytorch") is not None
