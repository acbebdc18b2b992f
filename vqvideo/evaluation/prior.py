"""Held-out figures of a prior that reads real clips: what it says of each latent step, given the real ones before."""

from __future__ import annotations

from collections.abc import Iterator
from math import log
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from vqvideo.data.codes import CodeClips, encode_episode
from vqvideo.data.config import SegmentConfig
from vqvideo.data.store import Store
from vqvideo.evaluation import metrics
from vqvideo.evaluation.metrics import to_double
from vqvideo.models.imagination import Imaginer
from vqvideo.models.prior import Likelihood, Prior

_MOST_LOGITS = 2**24
"""Logits at once, 64 MiB."""


@torch.no_grad()
def evaluate_prior(
    prior: Prior, clips: CodeClips, count: int, batch: int = 16, frame_size: tuple[int, int] | None = None
) -> dict[str, float]:
    """Held-out figures of a prior, teacher-forced, over `count` evenly spread clips of codes. What is drawn, such as
    the tokens that a masked head must fill in, is the same at every call.

    Args:
        prior: the prior.
        clips: held-out clips of codes.
        count: how many of them.
        batch: clips at once.
        frame_size: height and width of the tokenizer's frames, for bits_per_dim.

    Returns:
        token_nats (what training minimises, per token) and top1; bits_per_frame of the codes and, with `frame_size`,
        bits_per_dim, the same per channel of a pixel: the rate of the codes alone, since the tokenizer's losses are not
        coded (whether it is exact or a bound: `code_bits`).

        The others only if rewards, and ends, were recorded: reward_rmse beside reward_rmse_of_mean (predicting
        the mean reward: the standard deviation), reward_bias (predicted minus real) and reward_slope (of real on
        predicted, 1 is calibrated).

        Rewards and terminations are weighted as in training, so that each step of the episodes counts alike:
        termination_ap beside termination_rate (what guessing would reach; the former nan without any termination) and
        termination_ece, the calibration error of the probabilities.
    """
    picks = metrics.evenly(len(clips), count)
    generator = torch.Generator(prior.device).manual_seed(0)
    nats, top1, steps = 0.0, 0.0, 0
    columns = []
    for part in _batches(clips, picks, batch):
        output = prior(**{key: value.to(prior.device) for key, value in part.items()}, generator=generator)
        count = int(_there(part).sum())
        nats, steps = nats + output.metrics["token_nats"].item() * count, steps + count
        top1 += output.metrics["top1"].item() * count
        of_part = (part["rewards"], output.reward, part["terminated"], output.termination, part["weights"])
        columns.append([values.cpu().flatten() for values in of_part])
    real, expected, ended, logits, weights = (torch.cat(column) for column in zip(*columns, strict=True))
    real, expected, weights = real.double(), expected.double(), weights.double() / weights.double().sum()
    bits, _ = code_bits(prior, clips, picks, batch)
    per_dim = {"bits_per_dim": bits / (3 * frame_size[0] * frame_size[1])} if frame_size else {}
    of_codes = {"token_nats": nats / steps, "top1": top1 / steps, "bits_per_frame": bits, **per_dim}
    of_rewards = {
        "reward_rmse": ((expected - real).square() @ weights).sqrt().item(),
        "reward_rmse_of_mean": ((real - real @ weights).square() @ weights).sqrt().item(),
        "reward_bias": ((expected - real) @ weights).item(),
        "reward_slope": metrics.calibration_slope(expected, real, weights),
    }
    of_ends = {
        "termination_ap": metrics.average_precision(logits, ended, weights),
        "termination_rate": (ended.double() @ weights).item(),
        "termination_ece": metrics.expected_calibration_error(logits.sigmoid(), ended, weights),
    }
    spec = prior.spec
    return of_codes | (of_rewards if spec.knows_rewards else {}) | (of_ends if spec.knows_ends else {})


def teacher_forced(world: Imaginer, store: Store, most_steps: int) -> dict[str, Any]:
    """The figures of `evaluate_prior` over every latent step of the held-out split. Clips follow each other without a
    gap; the last one of an episode ends with it and overlaps.

    Args:
        world: the model.
        store: the episodes.
        most_steps: latent steps of a clip; of fewer where no episode is that long.

    Returns:
        The figures, with clips, latent_steps of each, and likelihood_kind: exact or a bound.

    Raises:
        InputError: no held-out episode is as long as two latent steps.
    """
    vqvae, s = world.vqvae, world.stride
    longest = max((1 + entry.length // s for entry in store.split("held_out")), default=0)
    steps = max(2, min(most_steps, longest))
    segments = SegmentConfig(steps, s * (steps - 1))
    episodes = map(store.reader, store.long_enough("held_out", 1 + s))
    clips = CodeClips([encode_episode(vqvae, episode, segments, vqvae.device) for episode in episodes], steps)
    figures = evaluate_prior(world.prior, clips, len(clips), frame_size=vqvae.frame_size)
    _, kind = code_bits(world.prior, clips, [0])
    return {"clips": len(clips), "latent_steps": steps, "likelihood_kind": kind, **figures}


@torch.no_grad()
def code_bits(prior: Prior, clips: CodeClips, picks: list[int], batch: int = 16) -> tuple[float, str]:
    """Bits per frame that the codes of clips cost under a prior, and whether that is exact or a bound."""
    generator = torch.Generator(prior.device).manual_seed(0)
    total, steps, kind = 0.0, 0, ""
    for part in _batches(clips, picks, batch):
        found = prior.likelihood(part["codes"].to(prior.device), part["actions"].to(prior.device), generator)
        counted = found.nats[_there(part).to(prior.device)]
        total, steps, kind = total + to_double(counted).sum().item(), steps + counted.numel(), found.kind
    return total / log(2) / steps / prior.spec.stride, kind


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


def _there(part: dict[str, Tensor]) -> Tensor:
    """(b, t - 1) bool: the steps that the episodes have."""
    return part.get("there", torch.ones_like(part["terminated"]))


def _batches(clips: CodeClips, picks: list[int], batch: int) -> DataLoader[dict[str, Tensor]]:
    """Chosen clips, a few at a time."""
    # Even in order a loader draws a seed, and by default from the randomness of a training that is under way.
    return DataLoader(Subset(clips, picks), batch_size=batch, generator=torch.Generator())


def _rows(prior: Prior, *clips: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Clips in parts of so many rows that their logits fit."""
    logits = clips[0].shape[1] * prior.spec.tokens * prior.spec.codebook_size
    return zip(*(values.split(max(1, _MOST_LOGITS // logits)) for values in clips), strict=True)
