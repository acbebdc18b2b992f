"""Dreams as episodes: what a world imagines, in the form in which it was recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vqvideo.data.episode import Steps
from vqvideo.data.exporting import Outgoing
from vqvideo.data.index import StoreMeta
from vqvideo.models.imagination import Imaginer
from vqvideo.models.pixels import channels_last
from vqvideo.models.prior import Sampling

IMPORTED = "dreams"
"""What `StoreMeta.imported` says of them."""


def dream_meta(world: Imaginer, recorded: StoreMeta, policy: str, seed: int) -> StoreMeta:
    """What dreams have in common that begin from episodes of a store.

    Args:
        world: who dreams.
        recorded: the meta of that store.
        policy: what chose the actions.
        seed: of the first dream.
    """
    spec = json.dumps({"imported": IMPORTED, "tokenizer": world.vqvae.fingerprint()})
    return replace(recorded, env_spec=spec, policy=policy, seed=seed, missing=world.prior.spec.missing)


@torch.no_grad()
def dream_episodes(
    world: Imaginer, frames: Tensor, actions: Tensor, context: int, sampling: Sampling, seed: int
) -> Iterator[Outgoing]:
    """The dreams of `pictures.dream_rows` with the same arguments. Each begins with the last frame of the context; the
    reward of a latent step comes with its last frame; it ends where a draw from the probabilities of ending says so.
    """
    seen = world.vqvae.clip_length(context)
    dream = world.imagine(frames[:, :seen], actions, sampling=sampling, seed=seed)
    pictures = channels_last(torch.cat([frames[:, seen - 1 : seen], dream.frames.cpu()], dim=1)).numpy()
    rewards, chances = (numbers.float().cpu().numpy() for numbers in (dream.rewards, dream.termination))
    ends = np.random.default_rng(seed).random(chances.shape) < chances
    for row, end in enumerate(ends):
        steps = int(end.argmax()) + 1 if end.any() else len(end)
        length, last = steps * world.stride, np.arange(steps * world.stride) == steps * world.stride - 1
        per_frame = np.zeros((steps, world.stride), np.float32)
        per_frame[:, -1] = rewards[row, :steps]
        taken = actions[row, seen - 1 : seen - 1 + length].double().cpu().numpy()
        flags = (last & flag for flag in (end.any(), not end.any()))
        yield Outgoing([pictures[row, : length + 1]], Steps(taken, per_frame.ravel(), *flags), seed, "held_out")
