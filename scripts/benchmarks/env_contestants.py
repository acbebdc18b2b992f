"""What is stepped in the benchmark of the imagined environment: bare worlds, their environments, environments beside.

An imagined step is one row of one call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vqvideo.models.prior.sampling import Sampling
from vqvideo.models.rows import RowStreams
from vqvideo.scripts.benchmarks.env_worlds import CONTEXT, RandomWorld, SavedWorld, endless
from vqvideo.world import WorldModel

if TYPE_CHECKING:
    from vqvideo.imagined_env import ImaginedVectorEnv, Starts

BARE = "WorldModel.step"
"""The contestant that the others are compared with."""
BARE_ROWS = f"{BARE}, random numbers per row"
ENV_ENDLESS, ENV = "ImaginedVectorEnv, no episode ends", "ImaginedVectorEnv"
_WARM_UP = 2
"""Calls before a contestant's CPU time counts: as many as `take_turns` makes before the first turn."""


@dataclass(frozen=True)
class Plan:
    """What is to be played, so that a fresh process can build it too."""

    place: SavedWorld | RandomWorld
    """The world, and where its dreams begin."""
    starts: int
    """Beginnings to read at most."""
    horizon: int
    """Latent steps after which an episode is truncated."""
    sampling: Sampling
    """How codes are drawn."""

    def world(self, device: torch.device) -> WorldModel:
        """The world on the device."""
        return self.place.load().to(device).eval().requires_grad_(False)

    def begin(self, device: torch.device) -> Play:
        """With the starts read."""
        from vqvideo.imagined_env.starts import read_starts

        world = self.world(device)
        read = read_starts(world, self.place.beginnings(world, self.starts), CONTEXT, self.starts)
        return Play(world, read, self.horizon, self.sampling)


@dataclass(frozen=True)
class Play:
    """A plan with everything in place."""

    world: WorldModel
    starts: Starts
    horizon: int
    sampling: Sampling

    def envs(self, streams: int) -> ImaginedVectorEnv:
        """The batched environment: numpy output, and rows that are over begin anew in the same step."""
        from vqvideo.imagined_env import ImaginedVectorEnv

        return ImaginedVectorEnv(self.world, self.starts, streams, autoreset_mode="SameStep", **self._options())

    def single_env(self) -> Any:
        """One environment by itself."""
        from vqvideo.imagined_env import ImaginedEnv

        return ImaginedEnv(self.world, self.starts, **self._options())

    def without_ends(self) -> Play:
        """The same work, but no episode ever ends."""
        return Play(endless(self.world), self.starts, 2**62, self.sampling)

    def _options(self) -> dict[str, Any]:
        from vqvideo.imagined_env import no_reward

        stats = self.world.prior.spec.stats
        reward = no_reward if stats.reward_low == stats.reward_high else None
        return {"horizon": self.horizon, "sampling": self.sampling, "reward": reward}


class Bare:
    """Steps of the world itself under fixed actions, with torch's random numbers or a stream of them for each row."""

    def __init__(self, play: Play, streams: int, random: torch.Generator | RowStreams) -> None:
        self._play, self._random = play, random
        device, space = play.world.device, play.envs(1).single_action_space
        space.seed(0)
        flat = np.stack([play.world.action_space.flatten(space.sample()) for _ in range(streams)])
        self._held = np.repeat(flat[:, None], play.world.stride, axis=1)
        self._all = torch.ones(streams, dtype=torch.bool, device=device)
        self._state = play.starts.state.rows(torch.arange(streams, device=device) % len(play.starts))

    def __call__(self) -> int:
        if isinstance(self._random, RowStreams):
            self._random.begin_event(self._all)
        step = self._play.world.step
        _, self._state = step(self._state, self._held, sampling=self._play.sampling, generator=self._random)
        return 0


class Playing:
    """A vector environment under fixed actions; a call tells how many episodes ended in it."""

    def __init__(self, envs: Any) -> None:
        self.envs = envs
        envs.action_space.seed(0)
        self._actions = envs.action_space.sample()
        envs.reset(seed=0)

    def __call__(self) -> int:
        _, _, terminated, truncated, _ = self.envs.step(self._actions)
        return int((terminated | truncated).sum())

    def staggered(self, horizon: int) -> Playing:
        """The same `horizon` steps later, in which the rows began one after the other: so will they end."""
        count = self.envs.num_envs
        for step in range(horizon):
            begins = np.arange(count) * horizon // count == step
            if begins.any():
                self.envs.reset(options={"reset_mask": begins})
            self()
        return self


class Clocked:
    """A contestant with an account of its CPU time, which other processes disturb less than they do its turns."""

    def __init__(self, step: Callable[[], int]) -> None:
        self._step = step
        self._seconds: list[float] = []
        self._ended: list[int] = []

    def __call__(self) -> None:
        began = time.process_time()
        ended = self._step()
        self._seconds.append(time.process_time() - began)
        self._ended.append(ended)

    @property
    def cpu_seconds(self) -> float:
        """Of a call, over all threads, on average: a mean, because the resets are in a few of the calls."""
        return float(np.mean(self._seconds[_WARM_UP:]))

    @property
    def ended(self) -> float:
        """Episodes that ended in a call, on average."""
        return float(np.mean(self._ended[_WARM_UP:]))


def contestants(play: Play, streams: int, peers: Mapping[str, Callable[[int], Any]]) -> dict[str, Callable[[], int]]:
    """What is stepped, by name: the world, its environment without and with ends, and other vector environments.

    Args:
        play: what is played.
        streams: rows of each.
        peers: make a vector environment of so many rows, by name.
    """
    quiet, device = play.without_ends(), play.world.device
    return {
        BARE: Bare(quiet, streams, torch.Generator(device).manual_seed(0)),
        BARE_ROWS: Bare(quiet, streams, RowStreams(streams, device)),
        ENV_ENDLESS: Playing(quiet.envs(streams)),
        ENV: Playing(play.envs(streams)).staggered(play.horizon),
        **{name: Playing(make(streams)) for name, make in peers.items()},
    }
