"""Tiny imagined environments, for their tests: worlds of every kind of action, and starts that need no store."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from tiny_models import FIVE, STEERING, noise_frames, tiny_world
from torch import Tensor

from vqvideo.imagined_env import ImaginedEnv, ImaginedVectorEnv, Starts
from vqvideo.spaces import ActionSpace
from vqvideo.world import WorldModel

_STEER = spaces.Box(-1, 1, (2,), np.float32)
SPACES = {
    "discrete": FIVE,
    "box": STEERING,
    "dict": ActionSpace.from_gymnasium(spaces.Dict({"gear": spaces.Discrete(3, start=1), "steer": _STEER})),
    "none": ActionSpace.none(),
    "tuple": ActionSpace.from_gymnasium(spaces.Tuple([spaces.MultiBinary(2), _STEER])),
}
"""By name; a world of any of them takes `some_starts`."""
MODES = ("NextStep", "SameStep", "Disabled")


@cache
def some_starts(world: WorldModel, count: int = 8, context: int = 1) -> Starts:
    """Starts from noise."""
    length = world.vqvae.clip_length(context)
    actions = torch.tensor(world.action_space.flatten(middle(world.action_space))).expand(count, length - 1, -1)
    return Starts.read(world, noise_frames(count, length), actions)


def middle(space: ActionSpace) -> Any:
    """A native action of the space: the lowest category, the middle of a Box."""
    values = [c.start if c.categories else (c.low + c.high) / 2 for c in space.columns]
    return space.unflatten(np.array(values))


def dreams(world: WorldModel | None = None, num_envs: int = 3, **options: Any) -> ImaginedVectorEnv:
    """A batch that begins from noise, with a horizon of 5."""
    world = world or some_world()
    starts = options.pop("starts", None) or some_starts(world)
    return ImaginedVectorEnv(world, starts, num_envs, **({"horizon": 5} | options))


def dream(world: WorldModel | None = None, **options: Any) -> ImaginedEnv:
    """A single env that begins from noise, with a horizon of 5."""
    world = world or some_world()
    starts = options.pop("starts", None) or some_starts(world)
    return ImaginedEnv(world, starts, **({"horizon": 5} | options))


def ending(world: WorldModel, bias: float) -> WorldModel:
    """The same world, changed: its episodes end by themselves the more often, the higher the `bias` is."""
    world.prior.termination.bias.fill_(bias)
    return world


def some_world(stride: int = 2, space: ActionSpace = FIVE, bias: float = -2.0) -> WorldModel:
    """A world whose episodes end by themselves, about every fourth step of most spaces."""
    return ending(tiny_world(stride, space), bias)


def endless(stride: int = 2, space: ActionSpace = FIVE) -> WorldModel:
    """A world whose episodes never end by themselves."""
    return ending(tiny_world(stride, space), -100.0)


def play(
    envs: ImaginedVectorEnv, steps: int = 12, *, actions: int = 0, seed: int | list[int | None] | None = None
) -> list[tuple[Any, ...]]:
    """What a reset and steps give, under actions drawn from the seed `actions`. With autoreset disabled, episodes that
    are over begin anew before the next step, and what that gives is among it.
    """
    envs.action_space.seed(actions)
    told: list[tuple[Any, ...]] = [envs.reset(seed=seed)]
    for _ in range(steps):
        told.append(envs.step(envs.action_space.sample()))
        over = torch.as_tensor(told[-1][2] | told[-1][3])
        if envs.autoreset_mode == AutoresetMode.DISABLED and over.any():
            told.append(envs.reset(options={"reset_mask": over.numpy()}))
    return told


def same(one: Any, two: Any) -> bool:
    """Whether two nests of results are equal bit by bit, types and names included."""
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(value, two[name]) for name, value in one.items())
    if isinstance(one, tuple | list):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, Tensor):
        return isinstance(two, Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, np.ndarray) and one.dtype == object:
        return same(list(one), list(two))
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and np.array_equal(one, two)
    return type(one) is type(two) and one == two


def row(told: list[tuple[Any, ...]], i: int) -> list[tuple[Any, ...]]:
    """Row `i` of everything that was told; infos that are not about it are left out."""
    return [tuple(_row(part, i) for part in parts) for parts in told]


def _row(part: Any, i: int) -> Any:
    if not isinstance(part, dict):
        return part[i]
    names = [name for name in part if not name.startswith("_") and part[f"_{name}"][i]]
    return {name: _row(part[name], i) for name in names}
