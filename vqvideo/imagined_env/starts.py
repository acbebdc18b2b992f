"""Where imagined episodes begin: contexts of real frames that the world model has read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, NamedTuple, TypeAlias

import gymnasium
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils._pytree import tree_map

from vqvideo.data.clips import Clips, StartClips
from vqvideo.data.moments import Choice, Moment, moments
from vqvideo.data.store import Store
from vqvideo.errors import InputError, whole
from vqvideo.models.given import as_tensor
from vqvideo.models.imagination import Imaginer, WorldState
from vqvideo.models.pixels import channels_first, channels_last
from vqvideo.spaces import ActionSpace

_BATCH = 64
"""Contexts that are read at once."""


@dataclass(frozen=True, eq=False)
class Starts:
    """r dreams that are about to begin, read once: a reset then costs a copy, not a pass of the model."""

    state: WorldState
    frames: Tensor
    """(r, h, w, c) uint8, the newest frame of each context as the tokenizer shows it: the first observation looks like
    those that follow.
    """
    source: Tensor
    """(r,) int64: number of the clip that each one was read from."""

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
        if not len(frames):
            raise InputError("starts are empty, expected at least one clip of frames")
        pairs = zip(frames.split(_BATCH), actions.split(_BATCH), strict=True)
        # What is no tensor is the same in all: dreams that begin from equally long contexts have the same clock.
        state, newest = tree_map(
            lambda first, *others: torch.cat([first, *others]) if isinstance(first, Tensor) else first,
            *(world.begin(*pair) for pair in pairs),
        )
        source = torch.arange(len(frames)) if source is None else source
        return cls(state, channels_last(newest), source.to(world.device))


StartsLike: TypeAlias = Store | Clips | StartClips | Starts | str | PathLike[str] | ArrayLike | Sequence[Any] | Tensor
"""What imagined episodes can begin from: a store (or its folder), clips, frames of one's own, a pair of frames and the
actions between them, or starts that were read before.
"""
Beginnings = StartsLike
"""The former name of `StartsLike`."""


def read_starts(world: Imaginer, source: StartsLike, context: int, count: int) -> Starts:
    """Starts from what a user names.

    Args:
        world: the model.
        source: a store, of whose training episodes clips are taken, evenly spread over the episodes and inside each;
            clips; frames (r, t, h, w, 3), or a pair of them and the flat actions (r, t - 1, a) between them.
        context: latent steps that each dream has seen when it begins: the first ones of a clip.
        count: at most so many.

    Raises:
        InputError: the store or the clips are of other frames or actions, or too short for the context; or there are
            none.
    """
    if isinstance(source, Starts):
        return source
    context, count = whole(context, "context"), whole(count, "max_starts")
    if isinstance(source, str | PathLike | Store):
        store = source if isinstance(source, Store) else Store.open(source)
        return recorded_starts(world, store, context, Choice(count))
    if isinstance(source, Clips):
        return _from_clips(world, source, context, Choice(count))
    if isinstance(source, StartClips):
        return _from_arrays(world, source.frames, source.actions, context, count)
    if isinstance(source, tuple | list) and len(source) == 2:
        return _from_arrays(world, source[0], source[1], context, count)
    return _from_arrays(world, source, None, context, count)


def _from_arrays(world: Imaginer, frames: Any, actions: Any, context: int, count: int) -> Starts:
    """Starts from the beginnings of clips; without actions, if there are none between the frames that are read."""
    h, w = world.vqvae.frame_size
    expected = f"a store, its folder, clips, or frames (r, t, {h}, {w}, 3) with or without actions: (frames, actions)"
    frames = _channels_first(world, as_tensor(frames, "starts", expected), "starts", expected)
    length, size = world.vqvae.clip_length(context), world.action_space.size
    if actions is None and length > 1 and size:
        raise InputError(f"actions between the {length} frames of a context are missing: starts=(frames, actions)")
    actions = torch.zeros(len(frames), length - 1, size) if actions is None else actions
    actions = as_tensor(actions, "actions of starts", f"numbers (r, t - 1, {size})")
    if frames.shape[1] < length or actions.ndim != 3 or actions.shape[1] < length - 1 or len(actions) != len(frames):
        raise InputError(
            f"start clips of shape {tuple(frames.shape)} with actions of shape {tuple(actions.shape)}, expected "
            f"(r, t, 3, h, w) and (r, t - 1, {size}) with t >= {length}: longer clips, or a shorter context"
        )
    return Starts.read(world, frames[:count, :length], actions[:count, : length - 1])


def _channels_first(world: Imaginer, frames: Tensor, name: str, expected: str) -> Tensor:
    """Frames (r, t, h, w, 3), as environments show them, or (r, t, 3, h, w), as (r, t, 3, h, w)."""
    h, w = world.vqvae.frame_size
    if tuple(frames.shape[2:]) == (h, w, 3):
        return channels_first(frames)
    if tuple(frames.shape[2:]) != (3, h, w):
        raise InputError(f"{name} of shape {tuple(frames.shape)}, expected {expected}")
    return frames


class Contexts(NamedTuple):
    """What dreams begin with."""

    frames: Tensor
    """(r, 1 + s c, 3, h, w) uint8."""
    actions: Tensor
    """(r, s c, a) flat ones between them."""
    source: Tensor
    """(r,) int64: numbers of the clips."""


def _from_clips(world: Imaginer, clips: Clips, context: int, choice: Choice) -> Starts:
    return Starts.read(world, *_contexts(world, clips, context, choice))


def _contexts(world: Imaginer, clips: Clips, context: int, choice: Choice) -> Contexts:
    clips.store.require(world.action_space, world.vqvae.frame_size)
    length = world.vqvae.clip_length(context)
    if clips.length < length:
        raise InputError(
            f"clips of {clips.length} frames, expected at least {length} for a context of {context} latent steps"
        )
    source = choice.of(clips, length - 1)
    picked = [clips[index] for index in source.tolist()]
    frames = torch.stack([clip["frames"][:length] for clip in picked])
    actions = torch.stack([clip["actions"][: length - 1] for clip in picked])
    return Contexts(frames, actions, torch.from_numpy(source))


def recorded_starts(world: Imaginer, store: Store, context: int, choice: Choice) -> Starts:
    """Starts from moments of the training episodes of a store.

    Args:
        world: the model.
        store: of the same frames and actions.
        context: latent steps that each dream has seen when it begins.
        choice: which moments.
    """
    return _from_clips(world, _clips_that_go_on(world, store, context), context, choice)


def start_contexts(world: Imaginer, store: Store, context: int, choice: Choice) -> Contexts:
    """The contexts of `recorded_starts`, for who wants to look at them too."""
    return _contexts(world, _clips_that_go_on(world, store, context), context, choice)


def start_moments(world: Imaginer, store: Store, context: int, choice: Choice) -> list[Moment]:
    """The moments of `recorded_starts`, for who wants to begin there in the real environment."""
    clips, newest = _clips_that_go_on(world, store, context), world.vqvae.clip_length(context) - 1
    return moments(clips, choice.of(clips, newest), newest)


def _clips_that_go_on(world: Imaginer, store: Store, context: int) -> Clips:
    """Clips of one frame more than is read: the episode goes on after the context, so that nothing begins at an end."""
    store.require(world.action_space, world.vqvae.frame_size)
    length = world.vqvae.clip_length(context)
    # The starts that come with a shipped world are held out from its training, and there are no others.
    split = "train" if store.split("train") else "held_out"
    longest = max((entry.length + 1 for entry in store.split(split)), default=0)
    if longest <= length:
        raise InputError(
            f"the longest {split} episode of {store.path} has {longest} frames, expected at least {length + 1}: a "
            f"context of {context} latent steps and a frame after it. Record longer episodes, or take a smaller context"
        )
    return Clips(store, split, length + 1, cache_gib=0.0)


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
    frames = _for_rows("frames", options["frames"], rows, "t, h, w, 3")
    actions = options.get("actions", np.zeros((rows, 0, world.action_space.size)))
    actions = _for_rows("actions", actions, rows, "t - 1, a")
    h, w = world.vqvae.frame_size
    frames = _channels_first(world, frames, "options['frames']", f"({rows}, t, {h}, {w}, 3)")
    return Starts.read(world, frames, actions, torch.full((rows,), -1))


def _for_rows(name: str, value: object, rows: int, shape: str) -> Tensor:
    """An option of a reset as a tensor (r, ...): what has no first dimension is for all rows."""
    tensor = as_tensor(value, f"options[{name!r}]", f"({rows}, {shape}), or ({shape}) for all")
    ndim = 1 + len(shape.split(","))
    tensor = tensor[None].expand(rows, *tensor.shape) if tensor.ndim == ndim - 1 else tensor
    if tensor.ndim != ndim or len(tensor) != rows:
        found = tuple(tensor.shape)
        raise InputError(f"options[{name!r}] of shape {found}, expected ({rows}, {shape}), or ({shape}) for all")
    return tensor
