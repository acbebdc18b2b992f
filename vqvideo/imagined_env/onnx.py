"""Imagined environments on exported worlds: what they ask of an `Imaginer`, answered by ONNX Runtime."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vqvideo.export import DreamState, OnnxWorld
from vqvideo.export.noise import BITS
from vqvideo.imagined_env.starts import Starts
from vqvideo.models.imagination import EnvFacts, WorldStep
from vqvideo.models.prior.sampling import Sampling
from vqvideo.models.rows import Randomness, uniform, with_rows
from vqvideo.spaces import ActionSpace


class OnnxState(NamedTuple):
    """A batch of dreams under way, in tensors that share the memory of ONNX Runtime's arrays."""

    codes: Tensor
    """(b, h, w) int32."""
    prior: dict[str, Tensor]
    """(b, ...) each."""
    decoder: dict[str, Tensor]
    """(b, ...) each."""

    @classmethod
    def of(cls, state: DreamState) -> OnnxState:
        """The tensors of a state, without its random numbers: environments have their own."""
        return cls(
            torch.from_numpy(state.codes),
            *({name: torch.from_numpy(part) for name, part in parts.items()} for parts in (state.prior, state.decoder)),
        )

    def arrays(self) -> DreamState:
        """As ONNX Runtime takes it."""
        prior, decoder = ({name: part.numpy() for name, part in parts.items()} for parts in (self.prior, self.decoder))
        rows = len(self.codes)
        return DreamState(self.codes.numpy(), prior, decoder, np.zeros(rows, np.uint32), np.zeros(rows, np.int64))

    def rows(self, index: Tensor) -> OnnxState:
        """The dreams (r,) of `index` as a batch of their own."""
        prior, decoder = ({name: part[index] for name, part in parts.items()} for parts in (self.prior, self.decoder))
        return OnnxState(self.codes[index], prior, decoder)

    def with_rows(self, index: Tensor, other: OnnxState) -> OnnxState:
        """The same dreams, those (r,) of `index` replaced by the r dreams of `other`."""
        prior, decoder = (
            {name: with_rows(part, index, theirs[name]) for name, part in mine.items()}
            for mine, theirs in ((self.prior, other.prior), (self.decoder, other.decoder))
        )
        return OnnxState(with_rows(self.codes, index, other.codes), prior, decoder)

    def ticked(self) -> OnnxState:
        """The same: there is no clock."""
        return self


class OnnxDreams:
    """An exported world as imagined environments know one.

    Args:
        world: the exported world.
    """

    def __init__(self, world: OnnxWorld) -> None:
        self.world, facts = world, world.facts
        self.env, self.sampling = EnvFacts(**facts.env), facts.sampling
        self.stride, self.device = world.stride, torch.device("cpu")
        self.vqvae = SimpleNamespace(
            frame_size=facts.frame_size, clip_length=lambda steps: 1 + self.stride * (steps - 1)
        )
        self.prior = SimpleNamespace(spec=SimpleNamespace(stats=SimpleNamespace(unrewarded=not facts.rewarded)))

    @property
    def action_space(self) -> ActionSpace:
        """Space of the actions."""
        return self.world.action_space

    def eval(self) -> OnnxDreams:
        """It knows no training."""
        return self

    def starts(self, context: int) -> Starts:
        """The exported start clips, each read for `context` latent steps."""
        codes, actions = self.world.starts
        read = self.world.begin(codes=codes[:, :context], actions=actions[:, : self.stride * (context - 1)], seed=0)
        newest = torch.from_numpy(np.ascontiguousarray(np.moveaxis(read[1], 1, -1)))
        return Starts(OnnxState.of(read[0]), newest, torch.arange(len(codes)))  # type: ignore[arg-type]

    def begin(self, frames: Tensor, actions: Tensor) -> tuple[OnnxState, Tensor]:
        """As `Imaginer.begin`."""
        state, newest = self.world.begin(frames.numpy(), actions.numpy(), seed=0)
        return OnnxState.of(state), torch.from_numpy(np.ascontiguousarray(newest))

    def advance(
        self, state: OnnxState, actions: Tensor, sampling: Sampling, generator: Randomness = None
    ) -> tuple[WorldStep, OnnxState]:
        """As `Imaginer.advance`."""
        self.world.check_sampling(sampling)
        numbers = uniform((len(actions), self.world.facts.noise), generator, self.device) * 2.0**BITS
        step, after = self.world.advance(state.arrays(), actions.numpy(), sampling, numbers.int().numpy())
        return WorldStep(*map(torch.from_numpy, step)), OnnxState.of(after)
