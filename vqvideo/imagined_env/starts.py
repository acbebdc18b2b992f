"""Where imagined episodes begin: contexts of real frames that the world model has read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import gymnasium
import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from vqvideo.data.clips import Clips, StartClips
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.models.imagination import Imaginer, WorldState
from vqvideo.spaces import ActionSpace

_BATCH = 64
"""Contexts that are read at once."""


class Starts:
    """Dreams that are about to begin, ready to be copied into a batch.

    They are read once: a reset then costs a copy, not a pass of the model.

    Attributes:
        state: of r dreams.
        frames: (r, h, w, c) uint8, the newest frame of each context as the tokenizer sees it, so that the first
            observation looks like those that follow.
        source: (r,) int64: which of the given clips each one is.
    """

    def __init__(self, state: WorldState, frames: Tensor, source: Tensor) -> None:
        self.state, self.frames, self.source = state, frames, source

    def __len__(self) -> int:
        return len(self.frames)

    def rows(self, index: Tensor) -> Starts:
        """The starts (r,) of `index`."""
        return Starts(self.state.rows(index), self.frames[index], self.source[index])

    @classmethod
    def read(cls, world: Imaginer, frames: Tensor, actions: Tensor, source: Tensor | None = None) -> Starts:
        """Reads contexts.

        Args:
            world: the model.
            frames: (r, 1 + s c, 3, h, w) real frames.
            actions: (r, s c, a) flat actions between them.
            source: (r,) numbers to know them by; None for 0 .. r - 1.

        Raises:
            InputError: another shape or type, more latent steps than the prior looks back over.
        """
        parts = [_read(world, f, a) for f, a in zip(frames.split(_BATCH), actions.split(_BATCH), strict=True)]
        state = parts[0][0] if len(parts) == 1 else joined(part for part, _ in parts)
        source = torch.arange(len(frames)) if source is None else source
        return cls(state, torch.cat([shown for _, shown in parts]), source.to(world.device))


def _read(world: Imaginer, frames: Tensor, actions: Tensor) -> tuple[WorldState, Tensor]:
    state, shown = world.begin(frames, actions)
    return state, rearrange(shown, "b c h w -> b h w c")


def joined(states: Iterable[WorldState]) -> WorldState:
    """Batches of dreams as one batch; all have the same clock, as those that `Imaginer.start` made of equally long
    contexts.
    """
    first, *others = states
    prior, decoder = first.prior, first.decoder
    caches = tuple(
        type(rings[0])(torch.cat([ring.k for ring in rings]), torch.cat([ring.v for ring in rings]))
        for rings in zip(*(state.prior.caches for state in (first, *others)), strict=True)
    )
    past = tuple(torch.cat(parts) for parts in zip(*(s.decoder.past for s in (first, *others)), strict=True))
    codes, seen = (torch.cat([getattr(s.prior, name) for s in (first, *others)]) for name in ("codes", "seen"))
    fresh = torch.cat([s.decoder.fresh for s in (first, *others)])
    return WorldState(prior._replace(caches=caches, codes=codes, seen=seen), decoder._replace(past=past, fresh=fresh))


StartsLike: TypeAlias = Store | StartClips | Starts | str | Path
"""What imagined episodes can begin from: a store (or its folder), clips, or starts that were read before."""
Beginnings = StartsLike
"""The former name of `StartsLike`."""


def read_starts(world: Imaginer, given: StartsLike, context: int, count: int) -> Starts:
    """Starts from what a user names.

    Args:
        world: the model.
        given: a store, of whose training episodes clips are taken, evenly spread over the episodes and inside each;
            or clips.
        context: latent steps that each dream has seen when it begins.
        count: at most so many.

    Raises:
        InputError: the store or the clips are of other frames or actions, or too short for the context.
    """
    if isinstance(given, Starts):
        return given
    if context < 1 or count < 1:
        raise InputError(f"context is {context} and starts are {count}, expected at least 1")
    if isinstance(given, StartClips):
        return _from_clips(world, given, context, count)
    return _from_store(world, given if isinstance(given, Store) else Store.open(given), context, count)


def _from_clips(world: Imaginer, clips: StartClips, context: int, count: int) -> Starts:
    length = world.vqvae.clip_length(context)
    if clips.frames.ndim != 5 or clips.frames.shape[1] < length or clips.actions.shape[1] < length - 1:
        raise InputError(
            f"start clips of shape {tuple(clips.frames.shape)}, expected (b, t, 3, h, w) with t >= {length}: longer "
            "clips, or a shorter context"
        )
    return Starts.read(world, clips.frames[:count, :length], clips.actions[:count, : length - 1])


def _from_store(world: Imaginer, store: Store, context: int, count: int) -> Starts:
    check_store(world, store)
    length = world.vqvae.clip_length(context)
    clips = _going_on(store, length, context)
    source = clips.spread(count)
    picked = [clips[index] for index in source.tolist()]
    frames = torch.stack([clip["frames"][:length] for clip in picked])
    actions = torch.stack([clip["actions"][: length - 1] for clip in picked])
    return Starts.read(world, frames, actions, torch.from_numpy(source))


def _going_on(store: Store, length: int, context: int) -> Clips:
    """Clips of one frame more than is read: the episode goes on after the context, so that nothing begins at an end."""
    # The starts that come with a shipped world are held out from its training, and there are no others.
    split = "train" if store.split("train") else "held_out"
    longest = max((entry.length + 1 for entry in store.split(split)), default=0)
    if longest <= length:
        raise InputError(
            f"the longest {split} episode of {store.path} has {longest} frames, expected at least {length + 1}: a "
            f"context of {context} latent steps and a frame after it. Record longer episodes, or take a smaller context"
        )
    return Clips(store, split, length + 1, cache_gib=0.0)


def check_store(world: Imaginer, store: Store) -> None:
    """Raises InputError unless frames and actions of the store are those of the world."""
    if store.meta.frame_size != world.vqvae.frame_size:
        raise InputError(
            f"{store.path} has frames of {store.meta.frame_size} (h, w), the world was trained on "
            f"{world.vqvae.frame_size}: record with --frame-size {world.vqvae.frame_size[0]}"
        )
    if store.meta.action_space != world.action_space:
        raise InputError(
            f"{store.path} has actions in {store.meta.action_space}, the world was trained on {world.action_space}: "
            "take a store of the same environment"
        )


def check_same_spaces(world: Imaginer, env: gymnasium.Env) -> None:
    """Raises InputError unless observations and actions of a real environment are those of the world's dream."""
    expected = (*world.vqvae.frame_size, 3)
    if env.observation_space.shape != expected:
        raise InputError(
            f"the environment shows {env.observation_space}, the world dreams frames of {expected} (h, w, 3): give one "
            "that shows them, such as vqvideo.envs.as_recorded(store.meta)"
        )
    found = ActionSpace.from_gymnasium(env.action_space)
    if found != world.action_space:
        raise InputError(
            f"the environment takes actions in {found}, the world was trained on {world.action_space}: give the "
            "environment that was recorded"
        )


def given_starts(world: Imaginer, options: dict[str, object], rows: int) -> Starts:
    """Starts from the `options` of a reset: `frames` (r, t, h, w, 3) uint8, or (t, h, w, 3) for all rows, and, if
    t > 1, flat `actions` (r, t - 1, a), or (t - 1, a) for all.
    """
    frames = _tensor(options["frames"])
    frames = frames[None].expand(rows, *frames.shape) if frames.ndim == 4 else frames
    if frames.ndim != 5 or len(frames) != rows:
        raise InputError(
            f"options['frames'] of shape {tuple(frames.shape)}, expected ({rows}, t, h, w, 3), or (t, h, w, 3) for all"
        )
    actions = _tensor(options.get("actions", np.zeros((rows, 0, world.action_space.size))))
    actions = actions[None].expand(rows, *actions.shape) if actions.ndim == 2 else actions
    if actions.ndim != 3 or len(actions) != rows:
        raise InputError(
            f"options['actions'] of shape {tuple(actions.shape)}, expected ({rows}, t - 1, a), or (t - 1, a) for all"
        )
    source = torch.full((rows,), -1)
    return Starts.read(world, rearrange(frames, "b t h w c -> b t c h w"), actions, source)


def _tensor(value: object) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
