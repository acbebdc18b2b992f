"""Settings of a prior, and of drawing from it. Without torch: a class is loaded when it is built.

A new head, way in for the actions or pooling has its settings and its place in the union here, a class of the same
name (less Config) in its file, and that file in the list of the package.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from vqvideo.errors import InputError, at_least
from vqvideo.models import class_of

if TYPE_CHECKING:
    from torch import Tensor

    from vqvideo.models.prior.prior import Prior
    from vqvideo.models.prior.spec import PriorSpec


@dataclass(frozen=True)
class ParallelHeadConfig:
    """All tokens of a step at once, independent of each other given the past: the fastest."""


@dataclass(frozen=True)
class MaskedHeadConfig:
    """The tokens of a step in a few passes of a small bidirectional transformer; a pass sees what those before drew."""

    passes: int = 4
    """Passes K per latent step; 1 draws all tokens independently."""
    layers: int = 2
    """Layers of the head."""
    heads: int = 4
    """Its attention heads."""
    mlp_ratio: float = 4.0
    """Size of its feed-forward."""

    def __post_init__(self) -> None:
        at_least(self, "head.", passes=1, layers=1, heads=1, mlp_ratio=0)


@dataclass(frozen=True)
class AutoregressiveHeadConfig:
    """One token after the other, in raster order, each given all before it."""

    layers: int = 2
    """Layers of the head."""
    heads: int = 4
    """Its attention heads."""
    mlp_ratio: float = 4.0
    """Size of its feed-forward."""

    def __post_init__(self) -> None:
        at_least(self, "head.", layers=1, heads=1, mlp_ratio=0)


@dataclass(frozen=True)
class PixelCNNConfig:
    """One token after the other, in raster order, each given all before it by gated, masked convolutions (van den Oord
    et al. 2016): the classic prior of stills.
    """

    layers: int = 8
    """Layers of the head."""
    kernel: int = 3
    """Tokens that a layer sees side by side, an odd number; above and to the left it sees half as many."""

    def __post_init__(self) -> None:
        at_least(self, "head.", layers=1, kernel=3)
        if self.kernel % 2 == 0:
            raise InputError(f"head.kernel is {self.kernel}, expected an odd number")


HeadConfig = ParallelHeadConfig | MaskedHeadConfig | AutoregressiveHeadConfig | PixelCNNConfig


@dataclass(frozen=True)
class AddConfig:
    """The action is added to every token."""


@dataclass(frozen=True)
class TokenConfig:
    """The action is a token of its own beside those of the frame."""


@dataclass(frozen=True)
class AdaLNConfig:
    """The action sets scale and shift of every norm."""


ConditioningConfig = AddConfig | TokenConfig | AdaLNConfig


@dataclass(frozen=True)
class MeanPoolingConfig:
    """All places count alike: for rewards that the whole picture earns."""


@dataclass(frozen=True)
class AttentionPoolingConfig:
    """Learned queries look for the places that matter: for rewards and ends that one small thing decides, which a mean
    over all places would drown.
    """

    queries: int = 4
    """Learned queries; each reads its own share of the width."""


@dataclass(frozen=True)
class DrawnPoolingConfig:
    """As `AttentionPooling`, and each place also shows the tokens that were drawn there: what is earned, and whether it
    is over, then agrees with what is seen, also where chance decides or the prior does not know.
    """

    queries: int = 4
    """Learned queries; each reads its own share of the width."""


PoolingConfig = MeanPoolingConfig | AttentionPoolingConfig | DrawnPoolingConfig


@dataclass(frozen=True)
class PriorConfig:
    """The prior: backbone, head, training noise."""

    dim: int = 128
    """Width d of the transformer."""
    patch: int = 1
    """Tokens of patch x patch squares share one place of the backbone and are dim / patch wide themselves."""
    heads: int = 4
    """Attention heads; dim / heads is a multiple of 4."""
    layers: int = 4
    """Number of layers."""
    time_every: int = 2
    """Each group of this many layers ends with one that attends along time; the others attend in space."""
    window: int = 8
    """Latent steps that temporal attention looks back over, the newest included."""
    mlp_ratio: float = 4.0
    """Size of the feed-forward relative to a plain one of dim x ratio."""
    head: HeadConfig = field(default_factory=ParallelHeadConfig)
    """How the tokens of a step are predicted."""
    conditioning: ConditioningConfig = field(default_factory=AddConfig)
    """How the actions reach the backbone."""
    pooling: PoolingConfig = field(default_factory=MeanPoolingConfig)
    """How reward and termination see the places of a step."""
    corruption: float = 0.1
    """Largest share of context tokens replaced at random in training, against drift in long dreams."""
    own_draws: float = 0.0
    """Share of the context's latent steps that training shows as the prior itself draws them, given the real ones
    before: dreams go on from those. Costs a second pass without gradient.
    """
    action_dropout: float = 0.1
    """Share of the actions that training hides, half of them clip by clip and half one by one: what guidance needs.
    Without effect where there are no actions, as in videos."""
    two_hot: Literal["value", "symlog"] = field(default="value", metadata={"before": "symlog"})
    """What the target of a reward weighs its two neighbouring bins by: their values, so that the mean of a head that
    fits is exact; or their symlogs, as in worlds from before there was this choice (up to an eighth off near 0).
    """
    reward_weight: float = 0.1
    """Weight of the reward loss beside the token cross-entropy."""
    termination_weight: float = 0.1
    """Weight of the termination loss."""

    def __post_init__(self) -> None:
        at_least(self, "prior.", dim=1, heads=1, mlp_ratio=0)
        if self.dim % (4 * self.heads):
            raise InputError(f"prior.dim {self.dim} with {self.heads} heads: dim must be a multiple of 4 x heads")
        at_least(self, "prior.", window=1, time_every=1)
        if self.layers < self.time_every:
            raise InputError(f"prior.layers is {self.layers}, expected at least prior.time_every, {self.time_every}")
        if isinstance(self.conditioning, TokenConfig) and self.time_every == 1:
            raise InputError(
                "prior.time_every is 1, so no layer attends in space, where tokens would see that of the action "
                "(conditioning Token): expected at least 2, or another conditioning"
            )
        for name in ("corruption", "own_draws", "action_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"prior.{name} is {getattr(self, name)}, expected 0 <= {name} < 1")
        if self.patch < 1 or self.dim % self.patch:
            raise InputError(f"prior.patch is {self.patch}, expected a divisor of prior.dim {self.dim}")
        own = getattr(self.head, "heads", 1)
        if own > 1 and self.token_dim % (4 * own):
            raise InputError(
                f"prior.head.heads is {own} and tokens are {self.token_dim} wide (prior.dim / prior.patch): expected a "
                "multiple of 4 x heads"
            )

        queries = getattr(self.pooling, "queries", 1)
        if queries < 1 or self.dim % queries:
            raise InputError(f"prior.pooling.queries is {queries}, expected a divisor of prior.dim {self.dim}")

    def places(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Places of the backbone in height and width for a grid of tokens.

        Raises:
            InputError: the patch does not divide the grid; it names the patches that do.
        """
        if any(side % self.patch for side in grid):
            fitting = " or ".join(map(str, self.patches_for(grid)))
            raise InputError(
                f"prior.patch is {self.patch}, expected a divisor of the tokenizer's grid {grid}: {fitting}"
            )
        return grid[0] // self.patch, grid[1] // self.patch

    def patches_for(self, grid: tuple[int, int]) -> list[int]:
        """All values of `patch` with which these settings suit a grid."""
        return [p for p in range(1, min(grid) + 1) if not (grid[0] % p or grid[1] % p) and self._takes(p)]

    def _takes(self, patch: int) -> bool:
        try:
            replace(self, patch=patch)
        except InputError:
            return False
        return True

    def check_context(self, steps: int) -> None:
        """Raises InputError if a context of so many latent steps is more than the prior looks back over."""
        if steps > self.window:
            raise InputError(
                f"a context of {steps} latent steps, the prior looks back over {self.window}: give it the last "
                f"{self.window} or fewer"
            )

    def check_sampling(self, how: Sampling, action_columns: int) -> None:
        """Raises InputError if a prior of such actions cannot be drawn from like that."""
        if how.guidance == 1 or (action_columns and self.action_dropout > 0):
            return
        if not action_columns:
            raise InputError(
                f"guidance is {how.guidance}, but this prior has no actions to be guided by: leave it at 1"
            )
        raise InputError(
            f"guidance is {how.guidance}, but this prior has never been without its actions: train it with "
            "prior.model.action_dropout above 0, or leave guidance at 1"
        )

    def build(self, spec: PriorSpec, codebook: Tensor) -> Prior:
        """A prior for what `spec` says, which begins with the tokenizer's code vectors (k, c)."""
        return class_of(self, "prior")(self, spec, codebook)

    @property
    def token_dim(self) -> int:
        """e, the width of a token in the head."""
        return self.dim // self.patch


STRONGEST_GUIDANCE = 1e6
"""Beyond, logits could become too large for single precision."""


@dataclass(frozen=True)
class Sampling:
    """How to draw codes."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest code."""
    top_k: int = 0
    """Keep only the k likeliest codes; 0 keeps all."""
    top_p: float = 0.9
    """Keep the smallest set of codes that holds this probability; 1 keeps all. Tokens are drawn independently of
    each other, so the unlikely tail shows as specks."""
    guidance: float = 1.0
    """How strongly the actions count: 1 as learnt, more than 1 exaggerates them, 0 dreams without them."""

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise InputError(f"temperature is {self.temperature}, expected 0 or more")
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}, expected 0 (all) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}, expected more than 0 and at most 1")
        if not 0 <= self.guidance <= STRONGEST_GUIDANCE:
            raise InputError(
                f"guidance is {self.guidance}, expected 0 (no actions), 1 (as learnt) or more, at most "
                f"{STRONGEST_GUIDANCE:g}: a few are a lot already"
            )

    @property
    def compares(self) -> bool:
        """Whether it takes two passes, with and without the actions."""
        return self.guidance not in (0, 1)
