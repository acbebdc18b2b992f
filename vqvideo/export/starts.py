"""Start clips for an exported world, of the held-out episodes of a store."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vqvideo.data.clips import Clips
from vqvideo.data.store import Store
from vqvideo.models.imagination import Imaginer

_LONGEST = 25
"""Latent steps of a clip at most: enough to compare a dream with."""


class StartFrames(NamedTuple):
    """Real clips to start from."""

    frames: Tensor
    """(r, 1 + s c, 3, h, w) uint8."""
    actions: Tensor
    """(r, s c, a) flat."""


def start_clips(world: Imaginer, store: Store, count: int) -> StartFrames:
    """At most `count` clips, as long as an episode holds them.

    Raises:
        InputError: the store is of another environment, or holds no held-out episode.
    """
    store.require(world.action_space, world.vqvae.frame_size)
    longest = max((entry.length + 1 for entry in store.split("held_out")), default=1)
    steps = min(_LONGEST, world.vqvae.cfg.latent_steps(longest))
    clips = Clips(store, "held_out", world.vqvae.clip_length(steps), cache_gib=0.0)
    picked = [clips[index] for index in clips.spread(count).tolist()]
    return StartFrames(*(torch.stack([clip[name] for clip in picked]) for name in ("frames", "actions")))
