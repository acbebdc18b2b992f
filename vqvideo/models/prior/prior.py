"""The prior: an action-conditioned transformer over codes, one backbone pass per latent step.

From the codes of step k - 1 (and its past) and the actions that lead to step k, it predicts all tokens of step k, the
reward on the way and whether the episode ends there.

Alignment: latent step k >= 1 is caused by the s actions a[(k - 1) s] .. a[k s - 1], which condition it together.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from vqvideo.errors import InputError
from vqvideo.models import class_of
from vqvideo.models.prior.backbone import Backbone, Hidden
from vqvideo.models.prior.config import PriorConfig
from vqvideo.models.prior.heads.base import Head, Likelihood
from vqvideo.models.prior.memory import KVCache, Seen
from vqvideo.models.prior.outcomes import RewardHead, SymlogRewardHead, termination_entropy, termination_loss
from vqvideo.models.prior.sampling import Sampling, TokenSampler
from vqvideo.models.prior.spec import PriorSpec
from vqvideo.models.rows import Randomness, with_rows


class PriorOutput(NamedTuple):
    """What a training pass returns."""

    loss: Tensor
    """Scalar to minimise."""
    metrics: dict[str, Tensor]
    """Scalars to log; cross-entropies in nats per token."""
    reward: Tensor
    """(b, t - 1): expected reward of each step."""
    termination: Tensor
    """(b, t - 1): logit that the episode ends in the step."""


class PriorState(NamedTuple):
    """A dream under way."""

    caches: tuple[KVCache, ...]
    """One per temporal layer."""
    codes: Tensor
    """(b, h, w): the newest latent step, not yet seen by the backbone."""
    clock: int
    """Latent steps the caches have taken."""
    seen: Seen
    """Latent steps each row has taken."""

    def rows(self, index: Tensor) -> PriorState:
        """The rows (r,) of `index` as a batch of their own."""
        caches = tuple(cache.rows(index) for cache in self.caches)
        return PriorState(caches, self.codes[index], self.clock, self.seen.rows(index))

    def with_rows(self, index: Tensor, other: PriorState) -> PriorState:
        """The same state with the rows (r,) of `index` taken from `other`, which has r rows and any clock."""
        pairs = zip(self.caches, other.caches, strict=True)
        caches = tuple(mine.with_rows(index, its.later(self.clock - other.clock)) for mine, its in pairs)
        codes = with_rows(self.codes, index, other.codes)
        return PriorState(caches, codes, self.clock, self.seen.with_rows(index, other.seen))


class PriorStep(NamedTuple):
    """One imagined latent step."""

    codes: Tensor
    """(b, h, w) int64."""
    reward: Tensor
    """(b,) expected sum of the rewards of the step."""
    termination: Tensor
    """(b,) probability that the episode ends in the step."""
    entropy: Tensor
    """(b,) mean entropy of the tokens in nats: how unsure the prior is."""
    outcome_entropy: Tensor
    """(b,) entropy in nats of the reward's bins and of whether the episode ends, together."""


class Prior(nn.Module):
    """Codes and actions to the codes, rewards and terminations that follow."""

    def __init__(self, cfg: PriorConfig, spec: PriorSpec, codebook: Tensor) -> None:
        super().__init__()
        if tuple(codebook.shape) != (spec.codebook_size, spec.code_dim):
            raise InputError(
                f"codebook of shape {tuple(codebook.shape)}, expected ({spec.codebook_size}, {spec.code_dim})"
            )
        self.cfg, self.spec = cfg, spec
        self.backbone = Backbone(cfg, spec, codebook)
        self.head: Head = class_of(cfg.head, "prior")(cfg.head, cfg.token_dim, spec.grid, codebook)
        self.pooling = class_of(cfg.pooling, "prior")(cfg.pooling, cfg.dim)
        self.summary = nn.Sequential(nn.LayerNorm(cfg.dim), nn.Linear(cfg.dim, cfg.dim), nn.SiLU())
        reward_head = RewardHead if cfg.two_hot == "value" else SymlogRewardHead
        self.reward = reward_head(cfg.dim, spec.stats.reward_low, spec.stats.reward_high)
        self.termination = nn.Linear(cfg.dim, 1)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.termination.weight.device

    @property
    def can_guide(self) -> bool:
        """Whether training hid actions, so that it knows how to dream without them. Where there are none, there is
        nothing to hide.
        """
        return self.cfg.action_dropout > 0 and self.spec.action_space.size > 0

    def forward(
        self,
        codes: Tensor,
        actions: Tensor,
        rewards: Tensor,
        terminated: Tensor,
        weights: Tensor | None = None,
        there: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> PriorOutput:
        """One training pass.

        Args:
            codes: (b, t, h, w) int64, t >= 2 latent steps.
            actions: (b, t - 1, s, a) float, those that lead to steps 1 .. t - 1.
            rewards: (b, t - 1), summed over each step.
            terminated: (b, t - 1) bool, whether the episode ends in the step.
            weights: (b, t - 1), how much the reward and the end of each step count: clips overlap, and so show the
                middle of an episode more often than its end. None: all alike.
            there: (b, t - 1) bool, the steps whose codes count: not those beyond the end of an episode. None: all.
            generator: of the tokens that the head hides, if it does.
        """
        flat = self._checked_clip(codes, actions)
        known = self._known(actions)
        context = self._corrupted(self._with_own_draws(flat[:, :-1], actions, known))
        hidden = self.backbone(context, actions, known)
        tokens = self.head(hidden.tokens, flat[:, 1:], generator, there)
        reward_logits, termination = self._outcome(hidden, flat[:, 1:])
        reward_loss = self.reward.loss(reward_logits, rewards, weights)
        end_loss = termination_loss(termination, terminated, weights)
        loss = tokens.nats + self.cfg.reward_weight * reward_loss + self.cfg.termination_weight * end_loss
        metrics = {
            "token_nats": tokens.nats.detach(),
            "top1": tokens.top1,
            "reward_loss": reward_loss.detach(),
            "termination_loss": end_loss.detach(),
        }
        return PriorOutput(loss, metrics, self.reward.mean(reward_logits), termination)

    @torch.no_grad()
    def likelihood(
        self, codes: Tensor, actions: Tensor, generator: torch.Generator | None = None, *, blind: bool = False
    ) -> Likelihood:
        """How likely real codes (b, t, h, w) are under the actions (b, t - 1, s, a), or `blind` to them: nats
        (b, t - 1) per latent step, each given the real steps before it.
        """
        flat = self._checked_clip(codes, actions)
        hidden = self.backbone(flat[:, :-1], actions, _unknown(actions) if blind else None)
        return self.head.likelihood(hidden.tokens, flat[:, 1:], generator)

    @torch.no_grad()
    def start(self, codes: Tensor, actions: Tensor) -> PriorState:
        """Reads a context.

        Args:
            codes: (b, c, h, w) int64, 1 <= c <= window latent steps.
            actions: (b, c - 1, s, a), those that led to steps 1 .. c - 1.
        """
        self.check_codes(codes)
        self.check_actions(actions, len(codes), codes.shape[1] - 1)
        self.cfg.check_context(codes.shape[1])
        seen = Seen.nothing(len(codes), codes.device)
        state = PriorState(self.backbone.init_caches(len(codes)), codes[:, 0], 0, seen)
        for k in range(1, codes.shape[1]):
            _, state = self._advance(state, actions[:, k - 1])
            state = state._replace(codes=codes[:, k])
        return state

    @torch.no_grad()
    def step(
        self, state: PriorState, action: Tensor, how: Sampling, generator: Randomness = None
    ) -> tuple[PriorStep, PriorState]:
        """Imagines one latent step.

        Args:
            state: from `start` or the last call; not changed.
            action: (b, s, a) flat actions taken on the way.
            how: how codes are drawn.
            generator: source of randomness, on the device of the model.
        """
        self.check_actions(action[:, None], len(state.codes), 1)
        self.cfg.check_sampling(how, self.spec.action_space.size)
        hidden, after = self._advance(state, action, blind=how.guidance == 0)
        tokens = hidden.tokens[:, 0]
        if how.compares:
            blind, _ = self._advance(state, action, blind=True)
            tokens = torch.cat([tokens, blind.tokens[:, 0]])
        sampler = TokenSampler(how, generator)
        drawn = self.head.sample(tokens, sampler)[: len(action)]
        reward, termination = self._outcome(hidden, drawn[:, None])
        expected, ends = self.reward.mean(reward)[:, 0], termination[:, 0].sigmoid()
        unsure = self.reward.entropy(reward)[:, 0] + termination_entropy(termination)[:, 0]
        codes = self._grid(drawn)
        step = PriorStep(codes, expected, ends, sampler.entropy, unsure)
        return step, after._replace(codes=codes)

    @torch.no_grad()
    def step_with(
        self, state: PriorState, action: Tensor, sampler: TokenSampler, *, blind: bool = False
    ) -> tuple[Tensor, PriorState]:
        """One latent step whose codes (b, h, w) any sampler decides, given the actions (b, s, a) that lead to it, or
        `blind` to them: one that draws, or one that knows them and only looks at how likely they are.
        """
        hidden, after = self._advance(state, action, blind=blind)
        codes = self._grid(self.head.sample(hidden.tokens[:, 0], sampler))
        return codes, after._replace(codes=codes)

    def check_codes(self, codes: Tensor) -> None:
        """Raises InputError unless codes are (b, t, h, w) of this prior's grid and codebook."""
        self._check_shape(codes, least=1)
        low, high = (int(bound) for bound in codes.aminmax()) if codes.numel() else (0, 0)
        if low < 0 or high >= self.spec.codebook_size:
            raise InputError(f"codes {low}..{high} found, expected 0..{self.spec.codebook_size - 1}")

    def check_actions(self, actions: Tensor, batch: int, steps: int) -> None:
        """Raises InputError unless actions are (b, t, s, a) of this prior's stride and action space."""
        expected = (batch, steps, self.spec.stride, self.spec.action_space.size)
        if tuple(actions.shape) != expected:
            raise InputError(
                f"actions of shape {tuple(actions.shape)}, expected {expected}: (batch, latent steps, frames per "
                f"latent step, columns of {self.spec.action_space})"
            )

    def after_step(self) -> None:
        """Called by the training loop after each optimizer step; nothing to do."""

    def _check_shape(self, codes: Tensor, least: int) -> None:
        if codes.dtype != torch.int64:
            raise InputError(f"codes of type {codes.dtype}, expected torch.int64")
        if codes.ndim != 4 or tuple(codes.shape[2:]) != self.spec.grid or codes.shape[1] < least:
            h, w = self.spec.grid
            raise InputError(f"codes of shape {tuple(codes.shape)}, expected (b, t, {h}, {w}) with t >= {least}")

    def _checked_clip(self, codes: Tensor, actions: Tensor) -> Tensor:
        """Codes as (b, t, n)."""
        self._check_shape(codes, least=2)
        # Training on a GPU should not wait for the largest code of each batch.
        if not self.training or codes.device.type == "cpu":
            self.check_codes(codes)
        self.check_actions(actions, len(codes), codes.shape[1] - 1)
        return rearrange(codes, "b t h w -> b t (h w)")

    def _grid(self, tokens: Tensor) -> Tensor:
        h, w = self.spec.grid
        return rearrange(tokens, "b (h w) -> b h w", h=h, w=w)

    def _outcome(self, hidden: Hidden, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Reward logits (b, t, bins) and termination logits (b, t) of steps with codes (b, t, n)."""
        drawn = self.backbone.embedded(codes) if self.pooling.looks else None
        summary = self.summary(self.pooling(hidden.places, drawn))
        return self.reward(summary), self.termination(summary)[..., 0].float()

    def _advance(self, state: PriorState, action: Tensor, *, blind: bool = False) -> tuple[Hidden, PriorState]:
        """Feeds the newest codes and the action that follows them through the backbone."""
        seen = state.seen.more(self.cfg.window)
        codes, action = rearrange(state.codes, "b h w -> b 1 (h w)"), action[:, None]
        known = _unknown(action) if blind else None
        hidden, caches = self.backbone.step(codes, action, known, state.caches, state.clock, seen)
        return hidden, PriorState(caches, state.codes, state.clock + 1, seen)

    def _known(self, actions: Tensor) -> Tensor | None:
        """Which actions training lets the backbone see: (b, t) bool, or None for all."""
        if not (self.training and self.can_guide):
            return None
        half = self.cfg.action_dropout / 2
        clip, single = (torch.rand(len(actions), t, device=actions.device) for t in (1, actions.shape[1]))
        return (clip >= half) & (single >= half)

    def _with_own_draws(self, codes: Tensor, actions: Tensor, known: Tensor | None) -> Tensor:
        """A context (b, t, n) in which random latent steps are drawn by the prior itself, each given the real ones
        before it: what it meets in dreams. All are drawn in one pass (parallel scheduled sampling, Duckworth et al.
        2019), and the first step, which nothing led to, stays as it is.
        """
        if not (self.training and self.cfg.own_draws) or codes.shape[1] < 2:
            return codes
        b, t, _ = codes.shape
        with torch.no_grad():
            seen = None if known is None else known[:, : t - 1]
            hidden = self.backbone(codes[:, :-1], actions[:, : t - 1], seen)
            drawn = self.head.sample(hidden.tokens.flatten(0, 1), TokenSampler(Sampling(top_p=1.0)))
        replaced = torch.rand(b, t - 1, 1, device=codes.device) < self.cfg.own_draws
        own = torch.where(replaced, drawn.unflatten(0, (b, t - 1)), codes[:, 1:])
        return torch.cat([codes[:, :1], own], dim=1)

    def _corrupted(self, codes: Tensor) -> Tensor:
        """Replaces a random share of the context by random codes, so that the prior learns to forgive itself."""
        if not (self.training and self.cfg.corruption):
            return codes
        share = torch.rand(len(codes), 1, 1, device=codes.device) * self.cfg.corruption
        noise = torch.randint_like(codes, self.spec.codebook_size)
        return torch.where(torch.rand(codes.shape, device=codes.device) < share, noise, codes)


def _unknown(actions: Tensor) -> Tensor:
    """None of the actions (b, t, s, a) is known: (b, t) bool."""
    return torch.zeros(actions.shape[:2], dtype=torch.bool, device=actions.device)
