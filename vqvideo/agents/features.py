"""How an agent sees a frame."""

from __future__ import annotations

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

_SMALLEST = 8
"""Pixels a side at which the convolutions stop to halve the picture: enough to tell the places of a board."""


class FrameFeatures(BaseFeaturesExtractor):
    """Convolutions that halve the frame down to about 8 x 8 places, and a vector of all of them.

    (The network that Stable-Baselines3 takes for pictures wants 84 x 84 pixels and refuses less than 36.)
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 128) -> None:
        super().__init__(observation_space, features_dim)
        c, h, w = observation_space.shape
        layers: list[nn.Module] = []
        width = 32
        while min(h, w) >= 2 * _SMALLEST:
            layers += [nn.Conv2d(c, width, 3, stride=2, padding=1), nn.ReLU()]
            c, h, w, width = width, -(-h // 2), -(-w // 2), 64
        layers += [nn.Conv2d(c, 32, 3, padding=1), nn.ReLU(), nn.Flatten()]
        self.body = nn.Sequential(*layers, nn.Linear(32 * h * w, features_dim), nn.ReLU())

    def forward(self, observations: Tensor) -> Tensor:
        """(b, c, h, w) float in 0 .. 1 -> (b, features_dim)."""
        return self.body(observations.contiguous(memory_format=torch.contiguous_format))
