"""The prior: an action-conditioned transformer over codes, one backbone pass per latent step.

Factorised in space and time: full attention among the tokens of a latent step, causal attention along time at each
place, over a window of latent steps. From the codes of step k - 1 (and its past) and the actions that lead to step k,
it predicts all tokens of step k, the reward on the way and whether the episode ends there.

Alignment: latent step k >= 1 is caused by the s actions a[(k - 1) s] .. a[k s - 1], which condition it together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqvideo.errors import InputError
from vqvideo.losses import symexp, symlog, two_hot
from vqvideo.nn import GatedMLP, KVCache, SpaceAttention, TimeAttention
from vqvideo.sampling import Sampling, entropy, sample
from vqvideo.spaces import ActionSpace


class ActionStats(NamedTuple):
    """What the store recorded of the training episodes, to put actions and rewards to scale."""

    mean: tuple[float, ...]
    """Mean of each column of the flat actions."""
    std: tuple[float, ...]
    """Standard deviation of each column."""
    reward_low: float
    """Smallest sum of rewards over one latent step."""
    reward_high: float
    """Largest sum of rewards over one latent step."""


@dataclass(frozen=True)
class PriorSpec:
    """What the prior is for: facts of the tokenizer and of the store, saved with the model."""

    grid: tuple[int, int]
    """Tokens per latent step, in height and width."""
    codebook_size: int
    """Number of codes k."""
    code_dim: int
    """Width of the tokenizer's code vectors."""
    stride: int
    """Frames, and so actions, per latent step."""
    action_space: ActionSpace
    """Space of the actions."""
    stats: ActionStats
    """Recorded statistics."""
    tokenizer: str
    """Fingerprint of the tokenizer whose codes it speaks."""

    @property
    def tokens(self) -> int:
        """n, the number of tokens per latent step."""
        return self.grid[0] * self.grid[1]


class ActionEncoder(nn.Module):
    """Flat actions (b, t, s, a) to one vector per latent step (b, t, d).

    Categorical columns become one-hot, continuous ones are normalised by their recorded statistics; the s actions of
    a latent step are read together.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, space: ActionSpace, stats: ActionStats, stride: int, dim: int) -> None:
        super().__init__()
        self.columns = space.columns
        self.register_buffer("mean", torch.tensor(stats.mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(stats.std, dtype=torch.float32).clamp(min=1e-3))
        width = sum(column.categories or 1 for column in self.columns) * stride
        self.mlp = nn.Sequential(nn.Linear(width, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))

    def forward(self, actions: Tensor) -> Tensor:
        actions = actions.float()
        scaled = (actions - self.mean) / self.std
        features = [
            F.one_hot((actions[..., i] - column.start).long(), column.categories).float()
            if column.categories
            else scaled[..., i : i + 1]
            for i, column in enumerate(self.columns)
        ]
        return self.mlp(rearrange(torch.cat(features, dim=-1), "b t s f -> b t (s f)"))


class SpaceBlock(nn.Module):
    """Attention among the tokens of a step and feed-forward, each pre-norm and added to the stream."""

    def __init__(self, cfg: PriorConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        self.attention = SpaceAttention(cfg.dim, cfg.heads, grid)
        self.norm_attention, self.norm_mlp = nn.LayerNorm(cfg.dim, bias=False), nn.LayerNorm(cfg.dim, bias=False)
        self.mlp = GatedMLP(cfg.dim, cfg.mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm_attention(x))
        return x + self.mlp(self.norm_mlp(x))


class TimeBlock(nn.Module):
    """Attention along time and feed-forward, each pre-norm and added to the stream."""

    def __init__(self, cfg: PriorConfig) -> None:
        super().__init__()
        self.attention = TimeAttention(cfg.dim, cfg.heads, cfg.window)
        self.norm_attention, self.norm_mlp = nn.LayerNorm(cfg.dim, bias=False), nn.LayerNorm(cfg.dim, bias=False)
        self.mlp = GatedMLP(cfg.dim, cfg.mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm_attention(x))
        return x + self.mlp(self.norm_mlp(x))

    def step(self, x: Tensor, cache: KVCache, clock: int, seen: Tensor) -> tuple[Tensor, KVCache]:
        y, cache = self.attention.step(self.norm_attention(x), cache, clock, seen)
        x = x + y
        return x + self.mlp(self.norm_mlp(x)), cache


class TokenEmbedding(nn.Module):
    """Codes (b, t, n) to (b, t, n, d): a learned table plus a linear map of the tokenizer's code vectors, so that
    neighbouring codes begin as neighbours.
    """

    codebook: Tensor

    def __init__(self, codebook: Tensor, dim: int, tokens: int) -> None:
        super().__init__()
        self.register_buffer("codebook", codebook.clone())
        self.table = nn.Embedding(len(codebook), dim)
        self.geometry = nn.Linear(codebook.shape[1], dim)
        self.place = nn.Parameter(torch.randn(tokens, dim) * 0.02)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, codes: Tensor) -> Tensor:
        scale = self.codebook.std().clamp(min=1e-6)
        return self.table(codes) + self.geometry(F.embedding(codes, self.codebook) / scale) + self.place


@dataclass(frozen=True)
class ParallelHeadConfig:
    """All tokens of a step at once, independent of each other given the past."""

    def build(self, dim: int, codebook_size: int) -> ParallelHead:
        return ParallelHead(dim, codebook_size)


class ParallelHead(nn.Module):
    """(b, t, n, d) -> logits (b, t, n, k)."""

    def __init__(self, dim: int, codebook_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, bias=False)
        self.out = nn.Linear(dim, codebook_size, bias=False)
        nn.init.normal_(self.out.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(x))


HeadConfig = ParallelHeadConfig


class RewardHead(nn.Module):
    """Two-hot symlog reward (Hafner et al. 2023, arXiv:2301.04104) over the recorded range. (b, t, d) -> bins."""

    bins: Tensor

    def __init__(self, dim: int, low: float, high: float, bins: int = 64) -> None:
        super().__init__()
        edges = symlog(torch.tensor([low, high], dtype=torch.float32))
        if edges[1] - edges[0] < 1e-3:
            edges = edges + torch.tensor([-1.0, 1.0])
        self.register_buffer("bins", torch.linspace(float(edges[0]), float(edges[1]), bins))
        self.out = nn.Linear(dim, bins)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x)

    def loss(self, logits: Tensor, reward: Tensor) -> Tensor:
        """Cross-entropy against the two bins next to each reward."""
        return -(two_hot(symlog(reward), self.bins) * logits.float().log_softmax(dim=-1)).sum(dim=-1).mean()

    def mean(self, logits: Tensor) -> Tensor:
        """Expected reward (...) of logits (..., bins)."""
        return (logits.float().softmax(dim=-1) * symexp(self.bins)).sum(dim=-1)


@dataclass(frozen=True)
class PriorConfig:
    """The prior: backbone, head, training noise."""

    dim: int = 128
    """Width d of the transformer."""
    heads: int = 4
    """Attention heads; dim / heads is a multiple of 4."""
    layers: int = 4
    """Number of layers."""
    time_every: int = 2
    """Every how manieth layer attends along time; the others attend in space."""
    window: int = 8
    """Latent steps that temporal attention looks back over, the newest included."""
    mlp_ratio: float = 4.0
    """Size of the feed-forward relative to a plain one of dim x ratio."""
    head: HeadConfig = field(default_factory=ParallelHeadConfig)
    """How the tokens of a step are predicted."""
    corruption: float = 0.1
    """Largest share of context tokens replaced at random in training, against drift in long dreams."""
    reward_weight: float = 0.1
    """Weight of the reward loss beside the token cross-entropy."""
    termination_weight: float = 0.1
    """Weight of the termination loss."""

    def __post_init__(self) -> None:
        if self.dim % (4 * self.heads):
            raise InputError(f"prior.dim {self.dim} with {self.heads} heads: dim must be a multiple of 4 x heads")
        if self.window < 1 or self.layers < self.time_every or self.time_every < 1:
            raise InputError("prior: window, layers and time_every are at least 1, and layers at least time_every")
        if not 0 <= self.corruption < 1:
            raise InputError(f"prior.corruption is {self.corruption}, expected 0 <= corruption < 1")

    def build(self, spec: PriorSpec, codebook: Tensor) -> Prior:
        """A prior for the codes of one tokenizer. `codebook`: its code vectors (k, code_dim)."""
        return Prior(self, spec, codebook)


class PriorOutput(NamedTuple):
    """What a training pass returns."""

    loss: Tensor
    """Scalar to minimise."""
    metrics: dict[str, Tensor]
    """Scalars to log; cross-entropies in nats per token."""
    logits: Tensor
    """(b, t - 1, n, k): for latent steps 1 .. t - 1."""
    reward: Tensor
    """(b, t - 1): expected reward of each step."""
    termination: Tensor
    """(b, t - 1): logit that the episode ends in the step."""


class PriorState(NamedTuple):
    """A dream under way."""

    caches: tuple[KVCache, ...]
    """One ring per temporal layer."""
    codes: Tensor
    """(b, h, w): the newest latent step, not yet seen by the backbone."""
    clock: int
    """Latent steps the rings have taken."""
    seen: Tensor
    """(b,) int64: latent steps each row has taken, at most the window."""


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


class Prior(nn.Module):
    """Codes and actions to the codes, rewards and terminations that follow."""

    def __init__(self, cfg: PriorConfig, spec: PriorSpec, codebook: Tensor) -> None:
        super().__init__()
        if tuple(codebook.shape) != (spec.codebook_size, spec.code_dim):
            raise InputError(
                f"codebook of shape {tuple(codebook.shape)}, expected ({spec.codebook_size}, {spec.code_dim})"
            )
        self.cfg, self.spec = cfg, spec
        self.embed = TokenEmbedding(codebook, cfg.dim, spec.tokens)
        self.actions = ActionEncoder(spec.action_space, spec.stats, spec.stride, cfg.dim)
        self.blocks = nn.ModuleList(self._block(layer) for layer in range(cfg.layers))
        self.head = cfg.head.build(cfg.dim, spec.codebook_size)
        self.summary = nn.Sequential(nn.LayerNorm(cfg.dim), nn.Linear(cfg.dim, cfg.dim), nn.SiLU())
        self.reward = RewardHead(cfg.dim, spec.stats.reward_low, spec.stats.reward_high)
        self.termination = nn.Linear(cfg.dim, 1)

    def _block(self, layer: int) -> SpaceBlock | TimeBlock:
        along_time = layer % self.cfg.time_every == self.cfg.time_every - 1
        return TimeBlock(self.cfg) if along_time else SpaceBlock(self.cfg, self.spec.grid)

    def forward(self, codes: Tensor, actions: Tensor, rewards: Tensor, terminated: Tensor) -> PriorOutput:
        """One training pass.

        Args:
            codes: (b, t, h, w) int64, t >= 2 latent steps.
            actions: (b, t - 1, s, a) float, those that lead to steps 1 .. t - 1.
            rewards: (b, t - 1), summed over each step.
            terminated: (b, t - 1) bool, whether the episode ends in the step.
        """
        if codes.ndim != 4 or tuple(codes.shape[2:]) != self.spec.grid or codes.shape[1] < 2:
            h, w = self.spec.grid
            raise InputError(f"codes of shape {tuple(codes.shape)}, expected (b, t, {h}, {w}) with t >= 2")
        self.check_actions(actions, len(codes), codes.shape[1] - 1)
        flat = rearrange(codes, "b t h w -> b t (h w)")
        target = flat[:, 1:]
        hidden = self._hidden(self._corrupted(flat[:, :-1]), actions)
        logits = self.head(hidden)
        summary = self.summary(hidden.mean(dim=2))
        reward_logits, termination = self.reward(summary), self.termination(summary)[..., 0].float()
        token_loss = F.cross_entropy(rearrange(logits, "b t n k -> (b t n) k").float(), target.flatten())
        reward_loss = self.reward.loss(reward_logits, rewards)
        termination_loss = F.binary_cross_entropy_with_logits(termination, terminated.float())
        loss = token_loss + self.cfg.reward_weight * reward_loss + self.cfg.termination_weight * termination_loss
        metrics = {
            "token_nats": token_loss.detach(),
            "top1": (logits.detach().argmax(dim=-1) == target).float().mean(),
            "reward_loss": reward_loss.detach(),
            "termination_loss": termination_loss.detach(),
        }
        return PriorOutput(loss, metrics, logits, self.reward.mean(reward_logits), termination)

    @torch.no_grad()
    def start(self, codes: Tensor, actions: Tensor) -> PriorState:
        """Reads a context.

        Args:
            codes: (b, c, h, w) int64, c >= 1 latent steps.
            actions: (b, c - 1, s, a), those that led to steps 1 .. c - 1.
        """
        self.check_codes(codes)
        self.check_actions(actions, len(codes), codes.shape[1] - 1)
        batch = len(codes)
        caches = tuple(b.attention.init_cache(batch, self.spec.tokens) for b in self._time_blocks())
        seen = torch.zeros(batch, dtype=torch.int64, device=codes.device)
        state = PriorState(caches, codes[:, 0], 0, seen)
        for k in range(1, codes.shape[1]):
            _, state = self._advance(state, actions[:, k - 1])
            state = state._replace(codes=codes[:, k])
        return state

    @torch.no_grad()
    def step(
        self, state: PriorState, action: Tensor, how: Sampling, generator: torch.Generator | None = None
    ) -> tuple[PriorStep, PriorState]:
        """Imagines one latent step.

        Args:
            state: from `start` or the last call; not changed.
            action: (b, s, a) flat actions taken on the way.
            how: how codes are drawn.
            generator: source of randomness, on the device of the model.
        """
        self.check_actions(action[:, None], len(state.codes), 1)
        hidden, state = self._advance(state, action)
        logits = self.head(hidden)[:, 0].float()
        summary = self.summary(hidden.mean(dim=2))[:, 0]
        h, w = self.spec.grid
        codes = rearrange(sample(logits, how, generator), "b (h w) -> b h w", h=h, w=w)
        imagined = PriorStep(
            codes,
            self.reward.mean(self.reward(summary)),
            self.termination(summary)[..., 0].float().sigmoid(),
            entropy(logits).mean(dim=-1),
        )
        return imagined, state._replace(codes=codes)

    def check_codes(self, codes: Tensor) -> None:
        """Raises InputError unless codes are (b, t, h, w) of this prior's grid and codebook."""
        if codes.ndim != 4 or tuple(codes.shape[2:]) != self.spec.grid or codes.shape[1] < 1:
            h, w = self.spec.grid
            raise InputError(f"codes of shape {tuple(codes.shape)}, expected (b, t, {h}, {w}) with t >= 1")
        if codes.min() < 0 or codes.max() >= self.spec.codebook_size:
            found = f"{int(codes.min())}..{int(codes.max())}"
            raise InputError(f"codes {found} found, expected 0..{self.spec.codebook_size - 1}")

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

    def _time_blocks(self) -> list[TimeBlock]:
        return [block for block in self.blocks if isinstance(block, TimeBlock)]

    def _hidden(self, codes: Tensor, actions: Tensor) -> Tensor:
        x = self.embed(codes) + self.actions(actions)[:, :, None]
        for block in self.blocks:
            x = block(x)
        return x

    def _advance(self, state: PriorState, action: Tensor) -> tuple[Tensor, PriorState]:
        """Feeds the newest codes and the action that follows them through the backbone: (b, 1, n, d)."""
        x = self.embed(rearrange(state.codes, "b h w -> b 1 (h w)")) + self.actions(action[:, None])[:, :, None]
        seen = (state.seen + 1).clamp(max=self.cfg.window)
        caches = iter(state.caches)
        kept: list[KVCache] = []
        for block in self.blocks:
            if isinstance(block, TimeBlock):
                x, cache = block.step(x, next(caches), state.clock, seen)
                kept.append(cache)
            else:
                x = block(x)
        return x, PriorState(tuple(kept), state.codes, state.clock + 1, seen)

    def _corrupted(self, codes: Tensor) -> Tensor:
        """Replaces a random share of the context by random codes, so that the prior learns to forgive itself."""
        if not (self.training and self.cfg.corruption):
            return codes
        share = torch.rand(len(codes), 1, 1, device=codes.device) * self.cfg.corruption
        noise = torch.randint_like(codes, self.spec.codebook_size)
        return torch.where(torch.rand(codes.shape, device=codes.device) < share, noise, codes)
