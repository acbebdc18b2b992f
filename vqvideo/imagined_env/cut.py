"""Where a dream is cut because the model is unsure: thresholds, read off its figures while it follows real episodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from vqvideo.data.clips import Clips
from vqvideo.data.store import Store
from vqvideo.errors import InputError, suggest
from vqvideo.models.imagination import Imaginer, checked_sampling
from vqvideo.models.prior.sampling import Sampling

FIGURES = ("entropy", "outcome_entropy")
"""What a model says of how unsure it is in a step. Each finds steps that the other one misses: entropy those whose
picture comes out wrong, outcome_entropy those that go on from a picture which no real episode has shown.
"""
_CLIPS, _BATCH, _STEPS = 400, 100, 12
"""Clips that are followed, how many at once, and for how many latent steps."""


def cut_thresholds(
    world: Imaginer, store: Store, quantile: float = 0.99, *, context: int = 1, sampling: Sampling | None = None
) -> dict[str, float]:
    """What the figures of a step exceed in a share of 1 - `quantile` of the steps of real episodes that the world was
    not trained on: for `ImaginedVectorEnv(cut_above=...)`.

    Args:
        world: the model.
        store: of whose held-out episodes it follows some.
        quantile: 0 .. 1.
        context: latent steps that it has seen before.
        sampling: how codes are drawn.

    Raises:
        InputError: no held-out episode of more latent steps than the context, or an exported world, which cannot
            follow one.
    """
    if not 0 <= quantile <= 1:
        raise InputError(f"quantile is {quantile}, expected 0 .. 1")
    if not hasattr(world, "advance_unseen"):
        raise InputError("an exported world cannot follow real episodes: read thresholds off the world itself")
    clips, how = _held_out(world, store, context), checked_sampling(sampling, world.sampling)
    generator = torch.Generator(world.device).manual_seed(0)
    picks = clips.spread(_CLIPS)
    parts = np.array_split(picks, -(-len(picks) // _BATCH))
    steps = (_followed(world.eval(), clips, part, context, how, generator) for part in parts)
    found = torch.cat([figures for part in steps for figures in part])
    return dict(zip(FIGURES, found.quantile(quantile, dim=0).tolist(), strict=True))


def checked_thresholds(above: Mapping[str, float] | None) -> dict[str, float]:
    """The same; InputError for a figure that is none, or a threshold that is no number."""
    for name, value in (above or {}).items():
        if name not in FIGURES:
            raise InputError(f"cut_above names {name!r}: {suggest(name, FIGURES)}")
        if not value >= 0:
            raise InputError(f"cut_above[{name!r}] is {value}, expected 0 or more")
    return dict(above or {})


def _held_out(world: Imaginer, store: Store, context: int) -> Clips:
    store.require(world.action_space, world.vqvae.frame_size)
    longest = max((entry.length // world.stride for entry in store.split("held_out")), default=0)
    if longest < context:
        raise InputError(
            f"the longest held-out episode of {store.path} goes on for {longest} latent steps, expected at least "
            f"{context}: record more episodes (every --record.held-out-every-th is held out), or do not cut dreams"
        )
    return Clips(store, "held_out", world.vqvae.clip_length(1 + min(longest, context - 1 + _STEPS)), cache_gib=0.0)


def _followed(
    world: Imaginer, clips: Clips, indices: NDArray[np.int64], context: int, how: Sampling, generator: torch.Generator
) -> Iterator[Tensor]:
    """Figures (b, f) of the steps of some clips, each step given the real ones before it."""
    picked = [clips[int(index)] for index in indices]
    frames, actions = (torch.stack([clip[name] for clip in picked]) for name in ("frames", "actions"))
    codes = world.vqvae.encode(frames)
    state = world.start(frames[:, : world.vqvae.clip_length(context)], actions[:, : world.stride * (context - 1)])
    held = rearrange(actions.to(world.device), "b (t s) a -> b t s a", s=world.stride)
    for k in range(context, codes.shape[1]):
        step, state = world.advance_unseen(state, held[:, k - 1], how, generator)
        state = state._replace(prior=state.prior._replace(codes=codes[:, k]))
        yield torch.stack([getattr(step, name) for name in FIGURES], dim=-1)
