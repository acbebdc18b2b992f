"""How fast a world model imagines."""

from __future__ import annotations

import time

import torch

from vqvideo.models.imagination import Imaginer, WorldStep
from vqvideo.models.prior import Sampling


class Dreaming:
    """Streams that dream on from a black frame under one ordinary action; each call imagines a latent step.

    What is dreamt has no meaning: this is for measuring speed.

    Args:
        world: the model.
        streams: dreams at once.
        sampling: how codes are drawn.
    """

    def __init__(self, world: Imaginer, streams: int, sampling: Sampling | None = None) -> None:
        h, w = world.vqvae.frame_size
        space, stats = world.action_space, world.prior.spec.stats
        action = [c.start if c.categories else m for c, m in zip(space.columns, stats.mean, strict=True)]
        self.world, self.sampling = world, sampling
        self.action = torch.tensor(action).expand(streams, world.stride, -1)
        self.state = world.start(torch.zeros(streams, 1, 3, h, w), self.action[:, :0])

    def __call__(self) -> WorldStep:
        step, self.state = self.world.step(self.state, self.action, sampling=self.sampling)
        return step


@torch.no_grad()
def imagination_speed(world: Imaginer, streams: int, steps: int = 40, trials: int = 3) -> float:
    """Imagined frames per second over all streams, decoding included: the median of a few trials."""
    dream, rates = Dreaming(world, streams), []
    for _ in range(trials):
        for _ in range(5):
            dream()
        began = time.perf_counter()
        for _ in range(steps):
            step = dream()
        step.frames.cpu()
        rates.append(streams * steps * world.stride / (time.perf_counter() - began))
    return sorted(rates)[trials // 2]
