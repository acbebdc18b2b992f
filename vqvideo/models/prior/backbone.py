"""The backbone of the prior: a transformer factorised in space and time, one pass per latent step.

Full attention among the tokens of a latent step, causal attention along time at each place, over a window of latent
steps. At latent step k - 1 it reads its codes and the actions that lead on to step k; what it says is about step k.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from vqvideo.models import class_of
from vqvideo.models.prior.attention import SpaceAttention, TimeAttention
from vqvideo.models.prior.blocks import SpaceBlock, TimeBlock
from vqvideo.models.prior.conditioning import ActionEncoder, Conditioning, NoActions
from vqvideo.models.prior.config import PriorConfig
from vqvideo.models.prior.embedding import Patches, TokenEmbedding, Unpatched
from vqvideo.models.prior.memory import KVCache, Now, Seen
from vqvideo.models.prior.spec import PriorSpec
from vqvideo.models.row_parts import in_parts


class Hidden(NamedTuple):
    """What the backbone knows of the next latent step."""

    tokens: Tensor
    """(b, t, n, e), one vector per token."""
    places: Tensor
    """(b, t, n / p^2, d), one per place of the backbone."""


class Backbone(nn.Module):
    """Codes (b, t, n) and actions (b, t, s, a) to what follows each step."""

    def __init__(self, cfg: PriorConfig, spec: PriorSpec, codebook: Tensor) -> None:
        super().__init__()
        self.grid, self.head_dim = cfg.places(spec.grid), cfg.dim // cfg.heads
        self.embed = TokenEmbedding(codebook, cfg.token_dim, spec.tokens)
        # Saved worlds know it by this name.
        self.squares = Patches(cfg.dim, cfg.patch, spec.grid) if cfg.patch > 1 else Unpatched()
        hides = cfg.action_dropout > 0
        self.actions = (
            ActionEncoder(spec.action_space, spec.stats, spec.stride, cfg.dim, hides=hides)
            if spec.action_space.size
            else NoActions(cfg.dim)
        )
        self.conditioning: Conditioning = class_of(cfg.conditioning, "prior")(cfg.dim)
        self.blocks = nn.ModuleList(self._block(cfg, layer) for layer in range(cfg.layers))

    def _block(self, cfg: PriorConfig, layer: int) -> SpaceBlock | TimeBlock:
        norm = self.conditioning.norm
        if layer % cfg.time_every == cfg.time_every - 1:
            return TimeBlock(TimeAttention(cfg.dim, cfg.heads, cfg.window), cfg.dim, cfg.mlp_ratio, norm)
        attention = SpaceAttention(cfg.dim, cfg.heads, self.grid, self.conditioning.extra)
        return SpaceBlock(attention, cfg.dim, cfg.mlp_ratio, norm)

    def forward(self, codes: Tensor, actions: Tensor, known: Tensor | None = None) -> Hidden:
        """A whole clip. `known`: (b, t) bool, which actions it may see; None for all."""
        tokens, action = self.embed(codes), self.actions(actions, known)
        x = self.conditioning.enter(self.squares.fold(tokens), action)
        for block in self.blocks:
            x = block(x, action)
        return self._hidden(x, tokens)

    def embedded(self, codes: Tensor) -> Tensor:
        """Codes (b, t, n) as what its places begin with, (b, t, n / p^2, d)."""
        return self.squares.fold(self.embed(codes))

    def init_caches(self, batch: int) -> tuple[KVCache, ...]:
        """An empty cache for each temporal layer."""
        places = self.grid[0] * self.grid[1] + self.conditioning.extra
        return tuple(b.attention.init_cache(batch, places) for b in self.blocks if isinstance(b, TimeBlock))

    def step(
        self,
        codes: Tensor,
        action: Tensor,
        known: Tensor | None,
        caches: tuple[KVCache, ...],
        clock: int,
        seen: Seen,
    ) -> tuple[Hidden, tuple[KVCache, ...]]:
        """One latent step (b, 1, n) with caches, which are not changed.

        Args:
            codes: (b, 1, n) of the step.
            action: (b, 1, s, a), those that follow it.
            known: (b, 1) bool, which actions it may see; None for all.
            caches: those before this step.
            clock: how many steps were taken since the caches began (any row).
            seen: how many steps back each row may look, this one included.
        """
        after = tuple(cache.moved() for cache in caches)
        now = Now.at(clock, seen, self.head_dim)

        def compute(rows: slice) -> Hidden:
            of_rows = None if known is None else known[rows]
            tokens, vector = self.embed(codes[rows]), self.actions(action[rows], of_rows)
            x = self.conditioning.enter(self.squares.fold(tokens), vector)
            slots = (cache.part(rows) for cache in after)
            for block in self.blocks:
                if isinstance(block, TimeBlock):
                    x = block.step(x, vector, next(slots), now.part(rows))
                else:
                    x = block(x, vector)
            return self._hidden(x, tokens)

        return Hidden(*in_parts(compute, len(codes), codes.device)), after

    def _hidden(self, x: Tensor, tokens: Tensor) -> Hidden:
        places = self.conditioning.leave(x)
        return Hidden(self.squares.unfold(places, tokens), places)
