"""Held-out clips that a world model dreams on from, and what it makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from torch import Tensor

from vqvideo.data.clips import Clips
from vqvideo.models.imagination import Imagination, Imaginer
from vqvideo.models.pixels import to_uint8
from vqvideo.models.prior import Sampling
from vqvideo.models.tokenizer.vqvae import VQVAE

_STEPS = 8
"""Latent steps that pass the tokenizer at once."""


class Scene(NamedTuple):
    """A batch of held-out clips of c context and m further latent steps."""

    frames: Tensor
    """(b, t, c, h, w) uint8."""
    actions: Tensor
    """(b, t - 1, a)."""
    rewards: Tensor
    """(b, c - 1 + m), summed over the frames of each latent step."""
    seen: int
    """Frames of context."""

    @classmethod
    def read(cls, world: Imaginer, clips: Clips, indices: list[int], context: int) -> Scene:
        """Chosen clips, on the device of the model."""
        taken = [clips[i] for i in indices]
        frames, actions, rewards = (
            torch.stack([clip[key] for clip in taken]).to(world.device) for key in ("frames", "actions", "rewards")
        )
        summed = reduce(rewards, "b (t s) -> b t", "sum", s=world.stride)
        return cls(frames, actions, summed, world.vqvae.clip_length(context))

    @property
    def real(self) -> Tensor:
        """(b, 1 + s m, c, h, w): the last context frame, and what followed."""
        return self.frames[:, self.seen - 1 :]

    @property
    def lent(self) -> Tensor:
        """The actions with those after the context from the clip before."""
        known = self.seen - 1
        return torch.cat([self.actions[:, :known], self.actions.roll(1, dims=0)[:, known:]], dim=1)

    def grouped(self, actions: Tensor) -> Tensor:
        """Actions (b, t - 1, a) by latent step: (b, c - 1 + m, s, a)."""
        return rearrange(actions, "b (t s) a -> b t s a", t=self.rewards.shape[1])

    def dreams(self, world: Imaginer, sampling: Sampling, seed: int) -> dict[str, Imagination]:
        """What follows under the true actions, under those of another clip, and, if the prior can, under none."""
        start, blind = self.frames[:, : self.seen], replace(sampling, guidance=0.0)
        dreams = {
            "imagined": world.imagine(start, self.actions, sampling=sampling, seed=seed),
            "other_actions": world.imagine(start, self.lent, sampling=sampling, seed=seed),
        }
        if world.prior.can_guide:
            dreams["no_actions"] = world.imagine(start, self.actions, sampling=blind, seed=seed)
        return dreams


def through_tokenizer(vqvae: VQVAE, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (b, 1 + k, h, w) and reconstruction (uint8) of long clips (b, 1 + s k, c, h, w), a few steps at a time."""
    reading = writing = vqvae.init_state(len(frames))
    codes, rebuilt = [], []
    for part in (frames[:, :1], *frames[:, 1:].split(_STEPS * vqvae.stride, dim=1)):
        code, reading = vqvae.encode_step(part, reading)
        video, writing = vqvae.decode_step(code, writing)
        codes.append(code)
        rebuilt.append(to_uint8(video[:, -part.shape[1] :]))
    return torch.cat(codes, dim=1), torch.cat(rebuilt, dim=1)
