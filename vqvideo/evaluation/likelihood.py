"""What a prior says of real clips when it reads them, latent step by latent step."""

from __future__ import annotations

from collections.abc import Iterator
from math import log

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from vqvideo.data.codes import CodeClips
from vqvideo.evaluation.metrics import to_double
from vqvideo.models.prior import Likelihood, Prior

_MOST_LOGITS = 2**24
"""Logits at once, 64 MiB."""


@torch.no_grad()
def step_likelihood(prior: Prior, codes: Tensor, actions: Tensor, seed: int, *, blind: bool = False) -> Likelihood:
    """Nats of each latent step of long clips, in parts that bound the memory.

    Args:
        prior: the prior.
        codes: (b, t, h, w).
        actions: (b, t - 1, s, a).
        seed: of the order of tokens, where the head has one: equal seeds meet equal orders.
        blind: without the actions; only for a prior that can (`Prior.can_guide`).

    Returns:
        Nats (b, t - 1) of steps 1 .. t - 1, over all n tokens of a step.
    """
    generator = torch.Generator(codes.device).manual_seed(seed)
    parts = [prior.likelihood(z, a, generator, blind=blind) for z, a in _rows(prior, codes, actions)]
    return Likelihood(torch.cat([part.nats for part in parts]), parts[0].kind)


@torch.no_grad()
def step_rewards(prior: Prior, codes: Tensor, actions: Tensor, rewards: Tensor) -> Tensor:
    """Expected reward (b, t - 1) of each latent step, given the real steps before it. Arguments as of `Prior`."""
    # For the loss, which nobody asks for here.
    generator = torch.Generator(codes.device)
    rows = _rows(prior, codes, actions, rewards)
    found = [prior(z, a, r, torch.zeros_like(r, dtype=torch.bool), generator=generator).reward for z, a, r in rows]
    return torch.cat(found)


@torch.no_grad()
def code_bits(prior: Prior, clips: CodeClips, picks: list[int], batch: int = 16) -> tuple[float, str]:
    """Bits per frame that the codes of clips cost under a prior, and whether that is exact or a bound."""
    generator = torch.Generator(prior.device).manual_seed(0)
    total, steps, kind = 0.0, 0, ""
    for part in batches_of(clips, picks, batch):
        found = prior.likelihood(part["codes"].to(prior.device), part["actions"].to(prior.device), generator)
        total, steps, kind = total + to_double(found.nats).sum().item(), steps + found.nats.numel(), found.kind
    return total / log(2) / steps / prior.spec.stride, kind


def batches_of(clips: CodeClips, picks: list[int], batch: int) -> DataLoader[dict[str, Tensor]]:
    """Chosen clips, a few at a time."""
    # Even in order a loader draws a seed, and by default from the randomness of a training that is under way.
    return DataLoader(Subset(clips, picks), batch_size=batch, generator=torch.Generator())


def _rows(prior: Prior, *clips: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Clips in parts of so many rows that their logits fit."""
    logits = clips[0].shape[1] * prior.spec.tokens * prior.spec.codebook_size
    return zip(*(values.split(max(1, _MOST_LOGITS // logits)) for values in clips), strict=True)
