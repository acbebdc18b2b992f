"""Worlds whose imagined environments are measured: one on disk, or one with random weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vqvideo import pretrained
from vqvideo.data.clips import StartClips
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.models.prior import ActionStats, Prior
from vqvideo.scripts.benchmarks.dreams import Untrained
from vqvideo.spaces import ActionSpace
from vqvideo.world import EnvFacts, WorldModel

CONTEXT = 1
"""Latent steps that a dream has seen when it begins: an imagined environment's default."""


@dataclass(frozen=True)
class SavedWorld:
    """A trained world, whose episodes end when it says so."""

    name: str
    """Its folder, or the name of one that comes with vqvideo."""
    store: Path | None = None
    """The episodes that dreams begin from; None: the start clips of one that comes with vqvideo."""

    def load(self) -> WorldModel:
        return WorldModel.from_pretrained(self.name)

    def beginnings(self, world: WorldModel, count: int) -> Store:
        """Where dreams begin: of a store, readers take no more than the `count` that they are told."""
        if self.store is not None:
            return Store.open(self.store)
        if pretrained.find(self.name) is None:
            raise InputError(
                f"--store is missing: {self.name} has no start clips of its own; name the store that its dreams "
                "begin from, such as --store data/tiny_world"
            )
        return pretrained.start_store(self.name)


@dataclass(frozen=True)
class RandomWorld:
    """A world with random weights, on which speed hardly depends, and noise to begin from."""

    shape: Untrained
    """Its tokenizer, prior and frame size."""
    actions: ActionSpace
    """What actions it takes."""
    env_id: str
    """The environment in whose shape it is."""
    ends: float = 0.01
    """Probability that an episode ends in a step."""

    def load(self) -> WorldModel:
        vqvae, own = (driving := self.shape.load()).vqvae, driving.prior.spec
        size = self.actions.size
        stats = ActionStats((0.0,) * size, (1.0,) * size, reward_low=-1.0, reward_high=1.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.shape.seed)
            prior = Prior(self.shape.prior, replace(own, action_space=self.actions, stats=stats), vqvae.codebook)
        return _ending(WorldModel(vqvae, prior, EnvFacts(self.env_id, 10.0, 1)), self.ends)

    def beginnings(self, world: WorldModel, count: int) -> StartClips:
        """Where dreams begin: `count` clips of noise."""
        generator = torch.Generator().manual_seed(self.shape.seed)
        t, (h, w) = world.vqvae.clip_length(CONTEXT), world.vqvae.frame_size
        frames = torch.randint(256, (count, t, 3, h, w), generator=generator, dtype=torch.uint8)
        lowest = torch.tensor([column.low for column in self.actions.columns]).clamp(min=-1.0)
        return StartClips(frames, lowest.expand(count, t - 1, -1), torch.zeros(count, t - 1))


def endless(world: WorldModel) -> WorldModel:
    """A copy whose episodes never end by themselves: the same work without resets."""
    return _ending(copy.deepcopy(world), 0.0)


@torch.no_grad()
def _ending(world: WorldModel, probability: float) -> WorldModel:
    """The world itself, made to end episodes with this probability in each step."""
    last = world.prior.termination
    last.weight.zero_()
    last.bias.copy_(torch.tensor([probability]).logit())
    return world
