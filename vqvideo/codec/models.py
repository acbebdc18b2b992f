"""What expects codes: a prior, given actions and the past; or, with a tokenizer alone, how often each came before."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import deepcopy

import torch
from torch import Tensor

from vqvideo.codec.samplers import CodingSampler
from vqvideo.errors import InputError
from vqvideo.models.prior import Prior
from vqvideo.models.prior.config import MaskedHeadConfig

_ONCE = 32
"""How much a code that came counts against one that never did."""


class CodeModel(ABC):
    """Expects the codes of one chunk after the other."""

    @abstractmethod
    def begin(self, codes: Tensor) -> None:
        """The first latent step of a chunk, codes (h, w), which nothing is known of before."""

    @abstractmethod
    def step(self, actions: Tensor, sampler: CodingSampler) -> Tensor:
        """The codes (h, w) of the next latent step, to which the actions (s, a) lead, as the sampler decides."""


class PriorModel(CodeModel):
    """A prior in double precision, one stream, step by step on both sides: see `vqvideo.codec.tables`.

    Raises:
        InputError: its head asks for tokens more than once.
    """

    def __init__(self, prior: Prior) -> None:
        if isinstance(prior.cfg.head, MaskedHeadConfig):
            raise InputError(
                "the prior has a MaskedHead, which draws its tokens in an order of its own and some of them twice: it "
                "cannot be coded with. Train one with another head, or encode with the tokenizer alone"
            )
        # On the CPU: not every GPU has double precision, or is fast with it.
        self.prior = deepcopy(prior).to("cpu").double().eval().requires_grad_(False)

    def begin(self, codes: Tensor) -> None:
        none = torch.zeros(1, 0, self.prior.spec.stride, self.prior.spec.action_space.size, dtype=torch.float64)
        self._state = self.prior.start(codes[None, None], none)

    def step(self, actions: Tensor, sampler: CodingSampler) -> Tensor:
        codes, self._state = self.prior.step_with(self._state, actions[None].double(), sampler)
        return codes[0]


class AdaptiveModel(CodeModel):
    """How often each code came since the chunk began; places and time do not matter.

    Args:
        size: k, the number of codes.
        grid: (h, w) of a latent step.
    """

    def __init__(self, size: int, grid: tuple[int, int]) -> None:
        self.size, self.grid = size, grid

    def begin(self, codes: Tensor) -> None:
        self._counts = torch.ones(self.size, dtype=torch.int64)
        self._count(codes)

    def step(self, actions: Tensor, sampler: CodingSampler) -> Tensor:
        logits = self._counts.double().log().expand(1, self.grid[0] * self.grid[1], -1)
        codes = sampler(logits).view(self.grid)
        self._count(codes)
        return codes

    def _count(self, codes: Tensor) -> None:
        self._counts += _ONCE * torch.bincount(codes.flatten(), minlength=self.size)
