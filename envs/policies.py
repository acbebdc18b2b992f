"""Policies by name: what presses the buttons while an environment is recorded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from vqvideo.data.playing import Policy
from vqvideo.envs.atari import Arcade
from vqvideo.envs.car_racing import Drive
from vqvideo.envs.doom import Roam
from vqvideo.envs.min_atar import Play
from vqvideo.envs.mini_grid import Wander
from vqvideo.envs.tiny_world import ShortestPath
from vqvideo.errors import InputError, suggest
from vqvideo.spaces import ActionSpace


class Random:
    """Samples the action space anew at every step."""

    def reset(self, env: gymnasium.Env, rng: np.random.Generator) -> None:
        self.space = _seeded(env.action_space, rng)

    def __call__(self, frame: NDArray[np.uint8]) -> Any:
        return self.space.sample()


class StickyRandom:
    """Keeps a random action for a geometric time: single random steps cancel out and go nowhere.

    Args:
        mean_steps: steps for which an action is held, on average.
    """

    def __init__(self, mean_steps: float = 8.0) -> None:
        self.mean_steps = mean_steps

    def reset(self, env: gymnasium.Env, rng: np.random.Generator) -> None:
        self.space = _seeded(env.action_space, rng)
        self.rng = rng
        self.left = 0

    def __call__(self, frame: NDArray[np.uint8]) -> Any:
        if self.left == 0:
            self.action = self.space.sample()
            self.left = int(self.rng.geometric(1 / self.mean_steps))
        self.left -= 1
        return self.action


class Smooth:
    """Moves Box actions by an Ornstein-Uhlenbeck process; other leaves of the space are sticky-random.

    Unbounded sides of a Box are taken as -1 and 1.

    Args:
        mean_steps: steps after which an action has mostly forgotten where it was.
    """

    def __init__(self, mean_steps: float = 8.0) -> None:
        self.mean_steps = mean_steps

    def reset(self, env: gymnasium.Env, rng: np.random.Generator) -> None:
        self.space = env.action_space
        self.leaf = self._make_leaf(env.action_space, rng)

    def __call__(self, frame: NDArray[np.uint8]) -> Any:
        return self.leaf()

    def _make_leaf(self, space: spaces.Space, rng: np.random.Generator) -> Callable[[], Any]:
        if isinstance(space, spaces.Dict):
            children = {key: self._make_leaf(child, rng) for key, child in space.items()}
            return lambda: {key: child() for key, child in children.items()}
        if isinstance(space, spaces.Tuple):
            members = [self._make_leaf(child, rng) for child in space]
            return lambda: tuple(member() for member in members)
        if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
            return _OrnsteinUhlenbeck(space, rng, self.mean_steps)
        return _StickyLeaf(space, rng, self.mean_steps)


class _OrnsteinUhlenbeck:
    def __init__(self, space: spaces.Box, rng: np.random.Generator, mean_steps: float) -> None:
        self.space, self.rng = space, rng
        self.low = np.where(np.isfinite(space.low), space.low, np.minimum(space.high, 0) - 1.0)
        self.low = np.where(np.isfinite(self.low), self.low, -1.0)
        self.high = np.where(np.isfinite(space.high), space.high, self.low + 2.0)
        self.keep = np.exp(-1 / mean_steps)
        self.state = rng.standard_normal(space.shape)

    def __call__(self) -> NDArray[Any]:
        noise = self.rng.standard_normal(self.space.shape)
        self.state = self.keep * self.state + np.sqrt(1 - self.keep**2) * noise
        # A standard normal times 0.6 leaves the bounds in one step of ten, so the ends are visited too.
        unit = np.clip(0.5 + 0.3 * self.state, 0.0, 1.0)
        action = (self.low + unit * (self.high - self.low)).astype(self.space.dtype)
        return np.clip(action, self.space.low, self.space.high)


class _StickyLeaf:
    def __init__(self, space: spaces.Space, rng: np.random.Generator, mean_steps: float) -> None:
        self.space, self.rng, self.mean_steps = _seeded(space, rng), rng, mean_steps
        self.left = 0

    def __call__(self) -> Any:
        if self.left == 0:
            self.action = self.space.sample()
            self.left = int(self.rng.geometric(1 / self.mean_steps))
        self.left -= 1
        return self.action


class Constant:
    """Takes one action for ever.

    Args:
        vector: the action as a flat vector, (a,), such as `preset.actions["left"]`.
    """

    def __init__(self, vector: Sequence[float]) -> None:
        self.vector = np.asarray(vector, np.float64)

    def reset(self, env: gymnasium.Env, rng: np.random.Generator) -> None:
        self.action = ActionSpace.from_gymnasium(env.action_space).unflatten(self.vector)

    def __call__(self, frame: NDArray[np.uint8]) -> Any:
        return self.action


POLICIES: dict[str, Callable[[], Policy]] = {
    "random": Random,
    "sticky-random": StickyRandom,
    "smooth": Smooth,
    "drive": Drive,
    "arcade": Arcade,
    "minatar": Play,
    "wander": Wander,
    "roam": Roam,
    "shortest-path": ShortestPath,
}


def make_policy(name: str) -> Policy:
    """A new policy of that name.

    Raises:
        InputError: no policy has that name.
    """
    if name not in POLICIES:
        raise InputError(f"no policy is called {name!r}: {suggest(name, POLICIES)}")
    return POLICIES[name]()


class SpaceOnly(gymnasium.Env):
    """An environment that has actions and nothing else, for policies that look at nothing else."""

    def __init__(self, space: spaces.Space) -> None:
        self.action_space = space


def imagined_actions(name: str, space: spaces.Space, count: int, seed: int) -> list[list[float]]:
    """`count` flat actions of a policy that does not look at the world.

    Args:
        name: a policy of the table.
        space: the actions.
        count: how many actions.
        seed: of the policy.

    Raises:
        InputError: no such policy, or one that steers by the state of the real environment.
    """
    policy = make_policy(name)
    if isinstance(policy, Drive | Arcade | Play | Wander | Roam | ShortestPath):
        raise InputError(f"policy {name!r} looks at the real game, which a dream lacks: {suggest('', POLICIES)}")
    policy.reset(SpaceOnly(space), np.random.default_rng(seed))
    record = ActionSpace.from_gymnasium(space)
    blank = np.zeros((1, 1, 3), np.uint8)
    return [record.flatten(policy(blank)).tolist() for _ in range(count)]


def _seeded(space: spaces.Space, rng: np.random.Generator) -> spaces.Space:
    # A copy: the environment's own space keeps its own random state.
    space = copy.deepcopy(space)
    space.seed(int(rng.integers(2**31)))
    return space
