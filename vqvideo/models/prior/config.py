"""Settings of a prior."""

from __future__ import annotations

from dataclasses import dataclass, field

from vqvideo.errors import InputError
from vqvideo.models.prior.conditioning import AddConfig, ConditioningConfig
from vqvideo.models.prior.heads import HeadConfig, ParallelHeadConfig
from vqvideo.models.prior.pooling import MeanPoolingConfig, PoolingConfig


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
    """Every how manieth layer attends along time; the others attend in space."""
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
    action_dropout: float = 0.1
    """Share of the actions that training hides, half of them clip by clip and half one by one: what guidance needs."""
    reward_weight: float = 0.1
    """Weight of the reward loss beside the token cross-entropy."""
    termination_weight: float = 0.1
    """Weight of the termination loss."""

    def __post_init__(self) -> None:
        if self.dim % (4 * self.heads):
            raise InputError(f"prior.dim {self.dim} with {self.heads} heads: dim must be a multiple of 4 x heads")
        if self.window < 1 or self.layers < self.time_every or self.time_every < 1:
            raise InputError("prior: window, layers and time_every are at least 1, and layers at least time_every")
        for name in ("corruption", "action_dropout"):
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

    @property
    def token_dim(self) -> int:
        """e, the width of a token in the head."""
        return self.dim // self.patch
