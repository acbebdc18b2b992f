"""Nearest-code search, encoding and training step of the EMA quantizer beside vector-quantize-pytorch's.

Both get the same latents and the same codebook, learn by moving averages with the same decay, pass gradients straight
through, and start without k-means. Peers of the search are torch.cdist and the full squared distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from vqvideo.benchmarks.memory import peak_memory
from vqvideo.benchmarks.report import Table, megabytes, rate
from vqvideo.benchmarks.timing import Work, speed_ratio, take_turns, threads
from vqvideo.quantizers import EMAVQ, EMAVQConfig, nearest

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
    entries: tuple[Any, ...]
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


def measure_quantizers(
    problems: Sequence[Problem], thread_counts: Sequence[int], device: torch.device, rounds: int, round_seconds: float
) -> tuple[list[dict[str, Any]], list[Table]]:
    """Figures and tables of all problems.

    Returns:
        A record per contestant, and a table per problem and thread count.
    """
    records, tables = [], []
    for problem in problems:
        for count in thread_counts:
            title = f"quantizer, {problem} (vectors x codes x width), fp32, {device.type}, {count} thread(s)"
            columns = ("work", "contestant", "vectors/s", "ms", "quartiles", "first is x faster", "peak MB", "same codes")
            table = Table(title, columns)
            for part in parts(problem, with_peer=peer_is_installed()):
                found = _measure(part, problem, count, device, rounds, round_seconds)
                records += found
                table.rows.extend(map(_row, found))
            tables.append(table)
    return records, tables


def _measure(
    part: Part, problem: Problem, count: int, device: torch.device, rounds: int, round_seconds: float
) -> list[dict[str, Any]]:
    with threads(count):
        work = {entry.name: entry.prepare(device) for entry in part.entries}
        # The first call of each, before learning has moved any codebook.
        codes = {name: torch.as_tensor(call()) for name, call in work.items()}
        timings = take_turns(work, device, rounds, round_seconds)
    first = part.entries[0].name
    records = []
    for entry in part.entries:
        timing, ratio = timings[entry.name], speed_ratio(timings[first], timings[entry.name])
        records.append(
            {
                "work": part.title,
                "contestant": entry.name,
                "problem": asdict(problem),
                "threads": count,
                "device": device.type,
                "vectors_per_s": problem.vectors / timing.median,
                "seconds": timing.median,
                "seconds_quartiles": timing.spread,
                "seconds_rounds": timing.rounds,
                "calls_per_round": timing.calls,
                "first_is_times_faster": asdict(ratio),
                "peak_bytes": peak_memory(entry, device, count),
                "same_codes_as_first": (codes[entry.name] == codes[first]).float().mean().item(),
            }
        )
    return records


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    low, high = (1e3 * s for s in record["seconds_quartiles"])
    ratio = record["first_is_times_faster"]
    return (
        record["work"],
        record["contestant"],
        rate(record["vectors_per_s"]),
        f"{1e3 * record['seconds']:.2f}",
        f"{low:.2f}-{high:.2f}",
        f"{ratio['of_medians']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})",
        megabytes(record["peak_bytes"]),
        f"{record['same_codes_as_first']:.2%}",
    )
