"""Recorded episodes played again in a dream: the same starts, the same actions, and what the world makes of them."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import numpy as np
import torch
from einops import reduce
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from vqvideo.data.index import EpisodeEntry
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.evaluation.metrics import evenly, to_double
from vqvideo.models.imagination import Imaginer, WorldState
from vqvideo.models.pixels import channels_first
from vqvideo.models.prior import Sampling


class Outcomes(NamedTuple):
    """What episodes, real or dreamt, bring in m latent steps."""

    rewards: Tensor
    """(..., m) float64, summed over the frames of each step; what stands after the end does not count."""
    ends: Tensor
    """(...) int64: the step, from 1, in which the episode ended; m + 1 if it did not."""

    @property
    def ended(self) -> Tensor:
        """(..., m) bool: whether the episode ended in this step or before."""
        return self.ends[..., None] <= self._steps

    @property
    def lived(self) -> Tensor:
        """(..., m) bool: whether the episode was still alive when this step began."""
        return self.ends[..., None] >= self._steps

    @property
    def received(self) -> Tensor:
        """(..., m): the rewards up to the end, and 0 after it."""
        return self.rewards.where(self.lived, 0)

    @property
    def returns(self) -> Tensor:
        """(...): sum of the rewards up to the end."""
        return self.received.sum(dim=-1)

    @property
    def lengths(self) -> Tensor:
        """(...) float64: latent steps up to the end, that one included; m without an end."""
        return self.ends.clamp(max=self.rewards.shape[-1]).double()

    @property
    def _steps(self) -> Tensor:
        return 1 + torch.arange(self.rewards.shape[-1])


def first_end(ends: Tensor) -> Tensor:
    """The first step, from 1, that is an end (..., m) bool; m + 1 if none is: (...) int64."""
    steps = 1 + torch.arange(ends.shape[-1])
    return steps.where(ends, ends.shape[-1] + 1).amin(dim=-1)


class Dreams(NamedTuple):
    """What S dreams of each of n episodes bring in m latent steps."""

    outcomes: Outcomes
    """Rewards (n, S, m), ends (n, S)."""
    termination: Tensor
    """(n, S, m) float64: the probability of ending in the step."""


class Replay:
    """Episodes of a split whose outcome is known up to the horizon: long enough, or ended by the environment.

    Args:
        store: where the episodes are.
        split: "train" or "held_out".
        count: how many of them at most, spread over the split.
        seen: frames of context, from the first one on.
        stride: s, frames per latent step.
        horizon: m, latent steps after the context.
    """

    def __init__(self, store: Store, split: str, count: int, *, seen: int, stride: int, horizon: int) -> None:
        self.store, self.split = store, split
        self.seen, self.stride, self.horizon = seen, stride, horizon
        self.all = store.split(split)
        """Every episode of the split."""
        playable = [entry for entry in self.all if self._rest(entry) > 0]
        known = [entry for entry in playable if self._longest(entry) >= horizon]
        self.too_short = len(self.all) - len(playable)
        """Episodes that have nothing after the context."""
        self.cut = len(playable) - len(known)
        """Episodes that the recording cut before the horizon."""
        self.entries = [known[i] for i in evenly(len(known), count)]
        """The episodes to play."""

    def _rest(self, entry: EpisodeEntry) -> int:
        """Actions of an episode after the context."""
        return entry.length - (self.seen - 1)

    def _longest(self, entry: EpisodeEntry) -> float:
        """The longest horizon that is known: an episode that the environment ended is known for ever."""
        rest = self._rest(entry)
        return inf if rest > 0 and entry.terminated else max(0, rest // self.stride)

    def require(self, count: int) -> None:
        """InputError with the longest usable horizon, unless there are `count` episodes."""
        if len(self.entries) >= count:
            return
        longest = sorted((self._longest(entry) for entry in self.all), reverse=True)
        usable = int(longest[count - 1]) if len(longest) >= count else 0
        advice = f"the longest usable horizon is {usable}" if usable else "no horizon is usable"
        raise InputError(
            f"{self.store.path}: {len(self.entries)} of {len(self.all)} episodes of split {self.split} can be played "
            f"for {self.horizon} latent steps after {self.seen} frame(s) of context, expected at least "
            f"{count}; {self.cut} were cut before; {advice}. Lower it, or record longer episodes or more of them "
            "(scripts/record.py)"
        )

    def outcomes(self) -> Outcomes:
        """What really happened in the n episodes: rewards (n, m), ends (n,)."""
        rewards = np.zeros((len(self.entries), self.horizon * self.stride))
        for row, entry in zip(rewards, self.entries, strict=True):
            found = self.store.reader(entry).steps.rewards[self.seen - 1 :][: len(row)]
            row[: len(found)] = found
        ends = torch.tensor([self._end(entry) for entry in self.entries], dtype=torch.int64)
        return Outcomes(reduce(torch.from_numpy(rewards), "n (m s) -> n m", "sum", s=self.stride), ends)

    def context(self, picks: list[int]) -> tuple[Tensor, Tensor]:
        """Frames (b, t, c, h, w) uint8 of the contexts and the actions (b, t - 1, a) float64 between them."""
        readers = [self.store.reader(self.entries[i]) for i in picks]
        frames = torch.stack([torch.from_numpy(reader.frames(0, self.seen)) for reader in readers])
        actions = torch.stack([torch.from_numpy(reader.steps.actions[: self.seen - 1]) for reader in readers])
        return channels_first(frames), actions

    def actions(self, generator: torch.Generator) -> Tensor:
        """Actions (n, s m, a) float64 after the contexts. Those of an episode that ended before are continued by drawn
        stretches of other episodes of the split: a dream that misses the end must have something to go on with, and
        actions that stood still would tell the model of the end.
        """
        return torch.from_numpy(np.stack([self._continued(entry, generator) for entry in self.entries]))

    def _continued(self, entry: EpisodeEntry, generator: torch.Generator) -> NDArray[np.float64]:
        others = [other for other in self.all if other.index != entry.index]
        parts, needed = [self.store.reader(entry).steps.actions[self.seen - 1 :]], self.horizon * self.stride
        while sum(map(len, parts)) < needed:
            lender = self.store.reader(others[_below(len(others), generator)]).steps.actions
            parts.append(lender[_below(len(lender), generator) :])
        return np.concatenate(parts)[:needed]

    def _end(self, entry: EpisodeEntry) -> int:
        step = -(-self._rest(entry) // self.stride)
        return min(step, self.horizon + 1) if entry.terminated else self.horizon + 1


def _below(stop: int, generator: torch.Generator) -> int:
    """One of 0 .. stop - 1."""
    return int(torch.randint(stop, (1,), generator=generator))


@torch.no_grad()
def dream_again(
    world: Imaginer, replay: Replay, samples: int, sampling: Sampling, seed: int, batch: int
) -> tuple[Dreams, Dreams]:
    """Dreams `samples` times of all n episodes under their own actions, and under those of the episode before.

    Args:
        world: the model.
        replay: the episodes.
        samples: S, dreams of each.
        sampling: how codes are drawn.
        seed: of the codes and the ends, the same for both, and of the actions lent to episodes that ended early.
        batch: dreams at once.
    """
    n, chance = len(replay.entries), torch.Generator().manual_seed(seed)
    own = replay.actions(chance)
    plans = (own, own.roll(1, dims=0))
    # One number for each dream and step whatever the batch, and the same under other actions.
    luck = torch.rand(n, samples, replay.horizon, generator=chance, dtype=torch.float64)
    # Of their own seed: the same one on the same kind of device would draw ends and codes from the same numbers.
    of_codes = int(torch.randint(2**62, (1,), generator=chance))
    generators = [torch.Generator(world.device).manual_seed(of_codes) for _ in plans]
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    with tqdm(total=n, desc="dreaming", unit="episode", leave=False) as progress:
        for picks in torch.arange(n).split(max(1, batch // samples)):
            frames, actions = (x.repeat_interleave(samples, dim=0) for x in replay.context(picks.tolist()))
            state = world.start(frames, actions)
            for plan, generator, found in zip(plans, generators, parts, strict=True):
                rows = plan[picks].repeat_interleave(samples, dim=0)
                found.append(_dreamt(world, state, rows, sampling, generator))
            progress.update(len(picks))
    dreams, other = (_drawn(torch.cat(found, dim=1), luck) for found in parts)
    return dreams, other


def _dreamt(
    world: Imaginer, state: WorldState, actions: Tensor, sampling: Sampling, generator: torch.Generator
) -> Tensor:
    """Rewards and probabilities of ending (2, b, m) under the actions (b, s m, a)."""
    found = []
    for action in actions.split(world.stride, dim=1):
        step, state = world.step(state, action, sampling=sampling, generator=generator)
        found.append(torch.stack([step.reward, step.termination]))
    return to_double(torch.stack(found, dim=-1))


def _drawn(dreamt: Tensor, luck: Tensor) -> Dreams:
    """From rewards and probabilities (2, n S, m), with the ends drawn by numbers of 0 .. 1 (n, S, m)."""
    rewards, termination = dreamt.unflatten(1, luck.shape[:2])
    return Dreams(Outcomes(rewards, first_end(luck < termination)), termination)
