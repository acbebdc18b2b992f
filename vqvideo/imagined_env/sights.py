"""What an agent sees of a dream: its frames, or the codes alone, which saves drawing them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from vqvideo.errors import InputError, suggest
from vqvideo.imagined_env.starts import Starts
from vqvideo.models.imagination import Imaginer, WorldState, WorldStep
from vqvideo.models.pixels import channels_last
from vqvideo.models.prior.sampling import Sampling
from vqvideo.models.rows import RowStreams


class Seen(NamedTuple):
    """One imagined step of all rows."""

    step: WorldStep
    state: WorldState
    observations: Tensor
    """(b, ...)."""
    info: dict[str, Tensor]
    """What else was seen of it, (b, ...) each."""


class Sight(ABC):
    """What is seen of the dreams of a world.

    Args:
        world: the model.
    """

    space: spaces.Box
    """Of one observation."""

    def __init__(self, world: Imaginer) -> None:
        self.world = world

    @abstractmethod
    def first(self, starts: Starts) -> Tensor:
        """Observations (r, ...) of dreams that are about to begin."""

    @abstractmethod
    def advance(self, state: WorldState, actions: Tensor, sampling: Sampling, random: RowStreams) -> Seen:
        """One step under held actions (b, s, a)."""


class FrameSight(Sight):
    """The newest frame of each step (h, w, 3) uint8, and all of them in `info`."""

    def __init__(self, world: Imaginer) -> None:
        super().__init__(world)
        self.space = spaces.Box(0, 255, (*world.vqvae.frame_size, 3), np.uint8)

    def first(self, starts: Starts) -> Tensor:
        return starts.frames

    def advance(self, state: WorldState, actions: Tensor, sampling: Sampling, random: RowStreams) -> Seen:
        step, state = self.world.advance(state, actions, sampling, random)
        frames = channels_last(step.frames)
        return Seen(step, state, frames[:, -1], {"frames": frames})


class CodeSight(Sight):
    """The codes (h, w) int64 of each step: nothing is decoded, and the `frames` of a `WorldStep` are none."""

    def __init__(self, world: Imaginer) -> None:
        super().__init__(world)
        self.space = code_space(world.vqvae.grid, world.vqvae.quantizer.codebook_size)

    def first(self, starts: Starts) -> Tensor:
        return starts.state.prior.codes

    def advance(self, state: WorldState, actions: Tensor, sampling: Sampling, random: RowStreams) -> Seen:
        found, state = self.world.advance_unseen(state, actions, sampling, random)
        nothing = torch.empty(
            len(actions), 0, 3, *self.world.vqvae.frame_size, dtype=torch.uint8, device=actions.device
        )
        return Seen(WorldStep(nothing, *found), state, found.codes, {})


def code_space(grid: tuple[int, int], codebook_size: int) -> spaces.Box:
    """Of the codes (h, w) of one latent step."""
    return spaces.Box(0, codebook_size - 1, grid, np.int64)


SIGHTS: dict[str, type[Sight]] = {"frames": FrameSight, "codes": CodeSight}


def sight(world: Imaginer, observe: str) -> Sight:
    """The sight of that name. InputError if there is none."""
    if observe not in SIGHTS:
        raise InputError(f"observe is {observe!r}: {suggest(observe, SIGHTS)}")
    if observe == "codes" and not hasattr(world, "advance_unseen"):
        raise InputError("observe is 'codes', but an exported world shows its frames only: take observe='frames'")
    return SIGHTS[observe](world)
