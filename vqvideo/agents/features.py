"""How an agent sees a frame."""

from __future__ import annotations

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

_PLACES = 6
"""Places a side that a frame is cut into, at least: enough to tell the squares of a board."""


class FrameFeatures(BaseFeaturesExtractor):
    """Cuts a frame into 6 x 6 to 11 x 11 patches, looks twice at each and its neighbours, and makes a vector of all.

    (The network that Stable-Baselines3 takes for pictures wants 84 x 84 pixels and refuses less than 36. This one costs
    a fraction of it, and beside a small world model the agent's own learning is what takes time.)
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 128) -> None:
        super().__init__(observation_space, features_dim)
        c, h, w = observation_space.shape
        patch = 2 ** max(0, (min(h, w) // _PLACES).bit_length() - 1)
        self.body = nn.Sequential(
            nn.Conv2d(c, 32, patch, stride=patch),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 16, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * (h // patch) * (w // patch), features_dim),
            nn.ReLU(),
        )

    def forward(self, observations: Tensor) -> Tensor:
        """(b, c, h, w) float in 0 .. 1 -> (b, features_dim)."""
        return self.body(observations.contiguous())
