"""Settings of an agent that learns in the dream. Free of heavy imports, so that a script shows its help at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vqvideo.errors import InputError, at_least, fractions


@dataclass(frozen=True)
class PPOConfig:
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347)."""

    learning_rate: float = 1e-3
    """Step size, falling linearly to zero."""
    rollout: int = 16
    """Steps of each env between two updates."""
    batch: int = 256
    """Steps per gradient step."""
    epochs: int = 3
    """How often an update goes through its steps."""
    discount: float = 0.97
    """Gamma: how much the value of the next step counts in this one."""
    gae_lambda: float = 0.95
    """Of generalised advantage estimation."""
    entropy: float = 0.01
    """Weight of the entropy bonus."""
    clip: float = 0.2
    """How far the probability of an action may move in an update."""

    def __post_init__(self) -> None:
        at_least(self, "agent.ppo.", learning_rate=0, rollout=1, batch=2, epochs=1)
        fractions(self, "agent.ppo.", "discount", "gae_lambda")
        if not self.clip > 0:
            raise InputError(f"agent.ppo.clip is {self.clip}, expected more than 0")


@dataclass(frozen=True)
class AgentStage:
    """An agent, where it learns, and how it is judged."""

    steps: int = 300_000
    """Imagined steps, over all envs."""
    num_envs: int = 64
    """Dreams side by side."""
    horizon: int = 50
    """Latent steps after which a dream is cut."""
    cut: float | None = None
    """A dream is also cut, and its last value counted on, where the model is less sure than in this share of the steps
    of held-out real episodes, such as 0.99; None leaves it going.
    """
    context: int = 1
    """Latent steps that a dream has seen when it begins."""
    observe: Literal["frames", "codes"] = "frames"
    """What it looks at: the newest frame, or the codes of the newest latent step. In dreams these need not be decoded;
    in the real environment they are encoded from its frames.
    """
    memory: int = 0
    """Latent steps before the newest one that it also looks at, and the actions between them. One frame does not show
    where things are moving: 1 is enough for velocities. Dreams begin with a full memory if `context` is larger than it.
    """
    starts: int = 1024
    """How many recorded contexts dreams begin from."""
    newest: float = 0.0
    """Share of them from the newest quarter of the episodes."""
    eventful: float = 0.0
    """Share of them, beside those, from at most a horizon before an end, or a reward other than the commonest one."""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    """How it learns."""
    direct_envs: int = 8
    """Real envs side by side, for the comparison with an agent that learns in the real one."""
    episodes: int = 100
    """Real episodes that each agent is judged by."""
    longest: int = 1000
    """Real steps after which such an episode is cut, if the environment does not cut it before."""
    checks: int = 6
    """How often, from the beginning of its learning in dreams to the end, it plays a few episodes in the dream and in
    the real environment, which begin at the same moments and are cut alike: whether what dreams promise is true.
    """
    seed: int = 0
    """Everything follows from it."""

    def __post_init__(self) -> None:
        at_least(self, "agent.", steps=1, num_envs=1, horizon=1, context=1, starts=1, direct_envs=1, longest=1)
        at_least(self, "agent.", episodes=2, checks=0, memory=0)
        fractions(self, "agent.", "newest", "eventful")
        if self.cut is not None:
            fractions(self, "agent.", "cut")
        if self.newest + self.eventful > 1:
            raise InputError(
                f"agent.newest and agent.eventful are {self.newest + self.eventful:g} together, expected <= 1"
            )
        if self.num_envs * self.ppo.rollout < 2:
            raise InputError("agent.num_envs and agent.ppo.rollout are 1: an update needs at least 2 steps")
