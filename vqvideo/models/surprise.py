"""How unexpected real frames are to a world: a stream of frames and actions, watched latent step by latent step."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor

from vqvideo.errors import InputError
from vqvideo.models.pixels import to_unit
from vqvideo.models.prior import Prior
from vqvideo.models.prior.config import MaskedHeadConfig
from vqvideo.models.prior.sampling import Sampling, TokenSampler
from vqvideo.models.tokenizer.vqvae import VQVAE


class Surprise(NamedTuple):
    """Figures of a latent step (b, h, w), a number for each token; or of several, (b, m, h, w)."""

    nats: Tensor
    """Minus the log-likelihood of the code, given the past and the true action."""
    error: Tensor
    """Mean squared error of the reconstruction in the token's pixels, of 0 .. 1."""
    distance: Tensor
    """Mean squared distance of the encoder's output to the code vector that was chosen for it."""
    blind: Tensor | None
    """As `nats`, without knowing the action; None of a prior that did not learn to do without. Where the world still
    obeys, this is larger.
    """


def together(steps: list[Surprise]) -> Surprise:
    """Those of several steps, (b, m, h, w)."""
    blind = [step.blind for step in steps if step.blind is not None]
    return Surprise(
        torch.stack([step.nats for step in steps], dim=1),
        torch.stack([step.error for step in steps], dim=1),
        torch.stack([step.distance for step in steps], dim=1),
        torch.stack(blind, dim=1) if blind else None,
    )


class Watch:
    """Watches streams from their first frame on. What it knows of the past does not grow.

    Args:
        vqvae, prior: of a world.
        first: (b, 1, 3, h, w): the first frame of each stream.

    Raises:
        InputError: the prior's head has no likelihood of single tokens.
    """

    def __init__(self, vqvae: VQVAE, prior: Prior, first: Tensor) -> None:
        if isinstance(prior.cfg.head, MaskedHeadConfig):
            raise InputError(
                "the prior has a MaskedHead, which knows a bound for all tokens of a step and no likelihood of each: "
                "watch with a prior of another head"
            )
        self.vqvae, self.prior = vqvae, prior
        codes, self._encoder = vqvae.encode_step(first, vqvae.init_state(len(first)))
        _, self._decoder = vqvae.decode_step(codes, vqvae.init_state(len(first)))
        none = torch.zeros(len(first), 0, prior.spec.stride, prior.spec.action_space.size, device=codes.device)
        self._state = prior.start(codes, none)

    def rows(self, index: Tensor) -> Watch:
        """The streams (r,) of `index` as a batch of their own, which goes on by itself."""
        other = copy(self)
        other._encoder, other._decoder = self._encoder.rows(index), self._decoder.rows(index)
        other._state = self._state.rows(index)
        return other

    @torch.no_grad()
    def step(self, frames: Tensor, actions: Tensor) -> Surprise:
        """The next s frames (b, s, 3, h, w) and the actions (b, s, a) that led to them."""
        codes, distance, self._encoder = self.vqvae.encode_step_with_distance(frames, self._encoder)
        rebuilt, self._decoder = self.vqvae.decode_step(codes, self._decoder)
        blind = self._nats(codes[:, 0], actions, blind=True) if self.prior.can_guide else None
        nats = self._nats(codes[:, 0], actions, blind=False)
        rows, columns = self.vqvae.grid
        error = (to_unit(self.vqvae.checked(frames)) - rebuilt).square()
        cells = reduce(error, "b s c (h y) (w x) -> b h w", "mean", h=rows, w=columns)
        return Surprise(nats, cells, distance[:, 0], blind)

    def _nats(self, codes: Tensor, actions: Tensor, *, blind: bool) -> Tensor:
        known = _Knowing(codes)
        _, after = self.prior.step_with(self._state, actions, known, blind=blind)
        if not blind:
            self._state = after
        return known.nats.view_as(codes)


class _Knowing(TokenSampler):
    """Knows the codes (b, h, w), and notes how likely a head finds them."""

    def __init__(self, codes: Tensor) -> None:
        super().__init__(Sampling())
        self.revises = False
        self._left, self._nats = codes.flatten(1), list[Tensor]()

    def __call__(self, logits: Tensor) -> Tensor:
        count = logits.shape[1]
        codes, self._left = self._left[:, :count], self._left[:, count:]
        self._nats.append(F.cross_entropy(logits.float().movedim(-1, 1), codes, reduction="none"))
        return codes

    def draw(self, x: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
        return self(logits(x))

    @property
    def nats(self) -> Tensor:
        """(b, n)."""
        return torch.cat(self._nats, dim=1)
