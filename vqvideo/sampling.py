"""Choosing codes from logits: temperature, top-k, top-p. Pure functions; randomness comes from a generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vqvideo.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How to draw codes."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest code."""
    top_k: int = 0
    """Keep only the k likeliest codes; 0 keeps all."""
    top_p: float = 0.9
    """Keep the smallest set of codes that holds this probability; 1 keeps all. Tokens are drawn independently of
    each other, so the unlikely tail shows as specks."""

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise InputError(f"temperature is {self.temperature}, expected 0 or more")
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}, expected 0 (all) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}, expected more than 0 and at most 1")


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Logits (..., k) with all but the `k` largest at -inf."""
    if k >= logits.shape[-1]:
        return logits
    return logits.masked_fill(logits < logits.topk(k, dim=-1).values[..., -1:], -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Nucleus (Holtzman et al. 2019, arXiv:1904.09751): the likeliest code always stays."""
    ordered, order = logits.sort(dim=-1, descending=True)
    probability = ordered.softmax(dim=-1)
    # A code stays if the likelier ones before it do not yet hold p.
    drop = (probability.cumsum(dim=-1) - probability) >= p
    return logits.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), -torch.inf)


def sample(logits: Tensor, how: Sampling, generator: torch.Generator | None = None) -> Tensor:
    """Codes (...) int64 drawn from logits (..., k), by the Gumbel-max trick (exact, no normalisation)."""
    if how.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.float() / how.temperature
    if how.top_k:
        logits = keep_top_k(logits, how.top_k)
    if how.top_p < 1:
        logits = keep_top_p(logits, how.top_p)
    noise = torch.empty_like(logits).exponential_(generator=generator)
    return (logits - noise.clamp(min=1e-30).log()).argmax(dim=-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of logits (..., k) -> (...)."""
    log_p = logits.float().log_softmax(dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1)
