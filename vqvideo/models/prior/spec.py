"""What a prior is for: the facts of tokenizer and store that are saved with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from vqvideo.spaces import ActionSpace


class ActionStats(NamedTuple):
    """What the store recorded of the training episodes, to put actions and rewards to scale."""

    mean: tuple[float, ...]
    """Mean of each column of the flat actions; none where there are no actions."""
    std: tuple[float, ...]
    """Standard deviation of each column."""
    reward_low: float
    """Smallest sum of rewards over one latent step."""
    reward_high: float
    """Largest sum of rewards over one latent step."""

    @property
    def unrewarded(self) -> bool:
        """Whether every recorded reward is 0."""
        return self.reward_low == self.reward_high == 0


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
    missing: tuple[str, ...] = ()
    """What nobody recorded: "rewards", "ends". Training saw zeros in their place, and what is predicted means nothing.
    """

    @property
    def tokens(self) -> int:
        """n, the number of tokens per latent step."""
        return self.grid[0] * self.grid[1]

    @property
    def only_frames(self) -> bool:
        """Whether frames are all there is, as in videos: no actions, and never a reward."""
        return not self.action_space.size and self.stats.unrewarded

    @property
    def knows_rewards(self) -> bool:
        """Whether rewards were recorded."""
        return not self.only_frames and "rewards" not in self.missing

    @property
    def knows_ends(self) -> bool:
        """Whether it was recorded how episodes end."""
        return not self.only_frames and "ends" not in self.missing
