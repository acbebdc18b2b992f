"""Imagined environments from the names of worlds and folders, for `gymnasium.make` and `gymnasium.make_vec`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vqvideo import pretrained
from vqvideo.errors import InputError
from vqvideo.hardware import default_device
from vqvideo.imagined_env.single import ImaginedEnv
from vqvideo.imagined_env.starts import Beginnings
from vqvideo.imagined_env.vector import ImaginedVectorEnv
from vqvideo.world import WorldModel


def make_env(
    world: WorldModel | str | Path, starts: Beginnings | None = None, device: str | None = None, **options: Any
) -> ImaginedEnv:
    """One imagined environment.

    Args:
        world: a model, its folder, or the name of one that comes with vqvideo.
        starts: where episodes begin; a world that comes with vqvideo has start clips of its own.
        device: where to put a model that is loaded; by default the best there is.
        options: as of `ImaginedVectorEnv`.
    """
    return ImaginedEnv(*_loaded(world, starts, device), **options)


def make_vector_env(
    world: WorldModel | str | Path,
    starts: Beginnings | None = None,
    num_envs: int = 1,
    device: str | None = None,
    **options: Any,
) -> ImaginedVectorEnv:
    """A batch of imagined environments; arguments as of `make_env`."""
    return ImaginedVectorEnv(*_loaded(world, starts, device), num_envs, **options)


def _loaded(
    world: WorldModel | str | Path, starts: Beginnings | None, device: str | None
) -> tuple[WorldModel, Beginnings]:
    if starts is None:
        shipped = None if isinstance(world, WorldModel) else pretrained.find(str(world))
        if shipped is None:
            raise InputError(
                "starts is missing: give the store that imagined episodes begin from, such as starts='data/car_racing'"
            )
        starts = pretrained.start_store(str(world))
    if not isinstance(world, WorldModel):
        world = WorldModel.from_pretrained(world).to(torch.device(device) if device else default_device())
    return world, starts
