"""What agents look at, frames or the codes of a tokenizer, and the networks that they look with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from einops import rearrange
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from vqvideo.data.playing import resize
from vqvideo.errors import MissingExtraError
from vqvideo.imagined_env.sights import code_space
from vqvideo.models.pixels import channels_first
from vqvideo.models.tokenizer.vqvae import VQVAE

try:
    from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
except ModuleNotFoundError as error:
    raise MissingExtraError(error, "agent") from error

_PATCHES = 6
"""Patches a side that a frame is cut into, at least: enough to tell the squares of a board."""
_SHARPNESS = 3.0
"""Factor of the scores of places: with 1, fresh weights look everywhere at once."""
_HEADS: dict[str, Any] = {"net_arch": {"pi": [64], "vf": [64]}}


class FrameFeatures(BaseFeaturesExtractor):
    """Cuts a frame into 6 x 6 to 11 x 11 patches, and tells where things are in them.

    (The network that Stable-Baselines3 takes for pictures wants 84 x 84 pixels and refuses less than 36. This one costs
    a fraction of it, and beside a small world model the agent's own learning is what takes time.)
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 128) -> None:
        super().__init__(observation_space, features_dim)
        c, h, w = observation_space.shape
        patch = 2 ** max(0, (min(h, w) // _PATCHES).bit_length() - 1)
        self.patches = nn.Sequential(nn.Conv2d(c, 32, patch, stride=patch), nn.ReLU())
        self.body = WhatIsWhere(32, (h // patch, w // patch), features_dim)

    def forward(self, observations: Tensor) -> Tensor:
        """(b, c, h, w) float in 0 .. 1 -> (b, features_dim)."""
        return self.body(self.patches(observations.contiguous()))


class CodeFeatures(BaseFeaturesExtractor):
    """Looks up a vector for each code and adds a map of the tokenizer's own; tells where things are in them."""

    codebook: Tensor

    def __init__(self, observation_space: spaces.Box, code_dim: int, features_dim: int = 128, width: int = 16) -> None:
        super().__init__(observation_space, features_dim)
        (*times, h, w), codes = observation_space.shape, int(observation_space.high.max()) + 1
        self.register_buffer("codebook", torch.zeros(codes, code_dim))
        self.table, self.geometry = nn.Embedding(codes, width), nn.Linear(code_dim, width)
        self.body = WhatIsWhere(width * prod(times), (h, w), features_dim)

    def forward(self, observations: Tensor) -> Tensor:
        """Codes (b, h, w), or (b, t, h, w) of several steps, as floats -> (b, features_dim)."""
        vectors = (self.table.weight + self.geometry(self.codebook))[observations.long()]
        return self.body(rearrange(vectors, "b ... h w e -> b (... e) h w"))


class WhatIsWhere(nn.Module):
    """Coordinates of what is found in a map by a spatial softmax (Levine et al. 2016, arXiv:1504.00702, section 5.2),
    the mean of the map, and a coarse look at all of it for what is spread out.

    What a player does depends on where things are to each other. From coordinates that is a sum; a network that
    flattens its map must see every pair of places first: on frames of the exact TinyWorld such a one got 3.4 of 29.4
    after 300,000 steps, and this one 20 after 100,000.

    Args:
        width: channels of the map.
        grid: (h, w) of the map.
        features_dim: of the result.
        points: how many things to look for.
    """

    places: Tensor

    def __init__(self, width: int, grid: tuple[int, int], features_dim: int, points: int = 32) -> None:
        super().__init__()
        axes = (torch.linspace(-1, 1, side) if side > 1 else torch.zeros(1) for side in grid)
        self.register_buffer("places", torch.cartesian_prod(*axes), persistent=False)
        self.scores = nn.Conv2d(width, points, 1)
        coarse = 32 * prod(-(-side // 4) for side in grid)
        self.look = nn.Sequential(
            *_halved(width, 32), *_halved(32, 32), nn.Flatten(), nn.Linear(coarse, 2 * points), nn.ReLU()
        )
        # From nothing on: many inputs of which few matter would hide the coordinates at first.
        self.share = nn.Parameter(torch.zeros(2 * points))
        self.join = nn.Sequential(
            nn.Linear(4 * points + width, features_dim), nn.ReLU(), nn.Linear(features_dim, features_dim), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, width, h, w) -> (b, features_dim)."""
        weights = (_SHARPNESS * self.scores(x).flatten(2)).softmax(-1)
        where = (weights @ self.places).flatten(1)
        return self.join(torch.cat([where, x.mean((2, 3)), self.share * self.look(x)], 1))


def _halved(width: int, out: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(width, out, 3, stride=2, padding=1), nn.ReLU()


@dataclass(frozen=True)
class FrameView:
    """The newest frame."""

    policy: ClassVar[type[ActorCriticPolicy]] = ActorCriticCnnPolicy
    frame_size: tuple[int, int]
    """(h, w) in pixels."""

    @property
    def space(self) -> spaces.Box:
        """Of what the network gets."""
        return spaces.Box(0, 255, (3, *self.frame_size), np.uint8)

    @property
    def architecture(self) -> dict[str, Any]:
        """Arguments of Stable-Baselines3's policy: the same alone and inside PPO, so that weights fit both."""
        return {"features_extractor_class": FrameFeatures, "normalize_images": True, **_HEADS}

    def prepare(self, observations: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> NDArray[Any]:
        """Frames (b, h, w, 3) of any size as the network gets them."""
        return np.moveaxis(np.stack([resize(frame, self.frame_size) for frame in observations]), -1, 1)

    def begin(self, policy: ActorCriticPolicy) -> None:
        """Prepares a fresh policy; nothing to do."""

    def to_json(self) -> dict[str, Any]:
        """Plain settings."""
        return {"frame_size": list(self.frame_size)}


@dataclass(frozen=True)
class CodeView:
    """The codes of the newest latent step."""

    policy: ClassVar[type[ActorCriticPolicy]] = ActorCriticPolicy
    grid: tuple[int, int]
    """(h, w) in tokens."""
    codebook_size: int
    code_dim: int
    codebook: Tensor | None = field(default=None, compare=False)
    """(k, d) to begin with; an agent that is loaded has it among its weights."""

    @classmethod
    def of(cls, vqvae: VQVAE) -> CodeView:
        """Those of a tokenizer."""
        codes, dim = vqvae.codebook.shape
        return cls(vqvae.grid, codes, dim, vqvae.codebook)

    @property
    def space(self) -> spaces.Box:
        """Of what the network gets."""
        return code_space(self.grid, self.codebook_size)

    @property
    def architecture(self) -> dict[str, Any]:
        """As of `FrameView`."""
        extractor = {"features_extractor_class": CodeFeatures, "features_extractor_kwargs": {"code_dim": self.code_dim}}
        return {**extractor, **_HEADS}

    def prepare(self, observations: Sequence[NDArray[np.int64]] | NDArray[np.int64]) -> NDArray[Any]:
        """Codes (b, h, w) as the network gets them."""
        return np.stack(list(observations))

    def begin(self, policy: ActorCriticPolicy) -> None:
        """Gives a fresh policy the tokenizer's vectors."""
        if self.codebook is not None:
            codebook = self.codebook.detach().float()
            policy.features_extractor.codebook.copy_(codebook / codebook.std().clamp(min=1e-6))  # type: ignore[operator]

    def to_json(self) -> dict[str, Any]:
        """Plain settings."""
        return {"grid": list(self.grid), "codebook_size": self.codebook_size, "code_dim": self.code_dim}


def plain_view(vqvae: VQVAE, observe: str) -> FrameView | CodeView:
    """The view of that name, on what a tokenizer makes."""
    return CodeView.of(vqvae) if observe == "codes" else FrameView(vqvae.frame_size)


def plain_view_from_json(config: dict[str, Any]) -> FrameView | CodeView:
    """The inverse of `to_json`, of both kinds."""
    if "frame_size" in config:
        h, w = config["frame_size"]
        return FrameView((h, w))
    h, w = config["grid"]
    return CodeView((h, w), int(config["codebook_size"]), int(config["code_dim"]))


# ---------------------------------------------------------------- codes of the real environment


class CodeStream:
    """Encodes the frames of one episode as they come.

    Args:
        vqvae: the tokenizer.
    """

    def __init__(self, vqvae: VQVAE) -> None:
        self.vqvae = vqvae.eval()
        self._state = vqvae.init_state(1)

    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.int64]:
        """Codes (h, w) of the newest latent step: after the first frame alone, then after each s frames (h, w, 3)."""
        sized = np.stack([resize(frame, self.vqvae.frame_size) for frame in frames])
        video = channels_first(torch.from_numpy(sized))[None].to(self.vqvae.codebook.device)
        codes, self._state = self.vqvae.encode_step(video, self._state)
        return codes[0, -1].cpu().numpy()


class CodeObservations(gymnasium.Wrapper):
    """A real environment as an agent of codes meets it: each action is held for a latent step, and what is observed are
    its codes.

    Args:
        env: observes frames (h, w, 3) uint8, one for each recorded step.
        vqvae: the tokenizer.
    """

    def __init__(self, env: gymnasium.Env, vqvae: VQVAE) -> None:
        super().__init__(env)
        self.vqvae = vqvae
        self.observation_space = CodeView.of(vqvae).space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        frame, info = self.env.reset(seed=seed, options=options)
        self._stream = CodeStream(self.vqvae)
        return self._stream([frame]), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        total, frames = 0.0, list[NDArray[np.uint8]]()
        terminated = truncated = False
        while len(frames) < self.vqvae.stride and not (terminated or truncated):
            frame, reward, terminated, truncated, info = self.env.step(action)
            # Some environments draw every frame into the same array.
            frames.append(frame.copy())
            total += float(reward)
        # An episode may end before the step does: the last frame then stands for those that never came.
        frames += frames[-1:] * (self.vqvae.stride - len(frames))
        return self._stream(frames), total, terminated, truncated, info
