"""A trained agent: acts on frames, goes to disk without a pickle, and records episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import gymnasium
import numpy as np
import torch
from gymnasium import Space, spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from vqvideo.data.playing import resize
from vqvideo.errors import InputError, MissingExtraError
from vqvideo.spaces import ActionSpace
from vqvideo.storage.checkpoint import config_errors, load_into, load_model, model_tensors, save_model

try:
    from stable_baselines3.common.policies import ActorCriticCnnPolicy
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
except ModuleNotFoundError as error:
    raise MissingExtraError(error, "agent") from error

KIND = "agent"
_PATCHES = 6
"""Patches a side that a frame is cut into, at least: enough to tell the squares of a board."""


class FrameFeatures(BaseFeaturesExtractor):
    """Cuts a frame into 6 x 6 to 11 x 11 patches, looks twice at each and its neighbours, and makes a vector of all.

    (The network that Stable-Baselines3 takes for pictures wants 84 x 84 pixels and refuses less than 36. This one costs
    a fraction of it, and beside a small world model the agent's own learning is what takes time.)
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 128) -> None:
        super().__init__(observation_space, features_dim)
        c, h, w = observation_space.shape
        patch = 2 ** max(0, (min(h, w) // _PATCHES).bit_length() - 1)
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


ARCHITECTURE: dict[str, Any] = {
    "features_extractor_class": FrameFeatures,
    "net_arch": {"pi": [64], "vf": [64]},
    "normalize_images": True,
}
"""Arguments of Stable-Baselines3's policy: `learning` makes the same one inside PPO, so that weights fit both."""


class Agent:
    """Chooses actions for frames.

    Args:
        policy: Stable-Baselines3's, for frames (3, h, w).
        frame_size: (h, w) in pixels.
        space: of the actions.
    """

    def __init__(self, policy: ActorCriticCnnPolicy, frame_size: tuple[int, int], space: ActionSpace) -> None:
        self.policy, self.frame_size, self.space = policy, frame_size, space

    @classmethod
    def untrained(cls, frame_size: tuple[int, int], space: ActionSpace) -> Self:
        """An agent with random weights.

        Raises:
            InputError: actions of a nested space, which Stable-Baselines3 does not choose.
        """
        native = trainable_space(space)
        observed = spaces.Box(0, 255, (3, *frame_size), np.uint8)
        return cls(ActorCriticCnnPolicy(observed, native, lambda _: 0.0, **ARCHITECTURE), frame_size, space)

    def __call__(self, frames: NDArray[np.uint8], *, greedy: bool = False) -> NDArray[Any]:
        """Actions (b, ...) drawn for frames (b, h, w, 3) uint8 of any size; the likeliest ones if `greedy`."""
        frames = np.moveaxis(np.stack([resize(frame, self.frame_size) for frame in frames]), -1, 1)
        actions, _ = self.policy.predict(frames, deterministic=greedy)
        return actions

    def save(self, folder: Path) -> None:
        """Writes a folder of JSON and safetensors, whole or not at all."""
        config = {"frame_size": list(self.frame_size), "action_space": self.space.to_json()}
        save_model(folder, KIND, config, _tensors(self.policy))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The agent of a folder.

        Raises:
            InputError: no agent there, or a damaged one.
        """
        saved = load_model(folder, KIND)
        with config_errors(folder):
            h, w = saved.config["frame_size"]
            agent = cls.untrained((h, w), ActionSpace.from_json(saved.config["action_space"]))
        load_into(agent.policy, {**_shared(saved.tensors), **saved.tensors}, folder)
        return agent


_SHARED, _NAMES = "features_extractor.", ("pi_features_extractor.", "vf_features_extractor.")
"""One network that Stable-Baselines3's policy holds under three names."""


def _tensors(policy: ActorCriticCnnPolicy) -> dict[str, Tensor]:
    """Parameters and buffers, each once."""
    return {name: value for name, value in model_tensors(policy).items() if not name.startswith(_NAMES)}


def _shared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the shared network under its other names."""
    own = {name.removeprefix(_SHARED): value for name, value in tensors.items() if name.startswith(_SHARED)}
    return {other + name: value for other in _NAMES for name, value in own.items()}


class AgentPolicy:
    """The agent of a folder as a policy that records episodes, some of its actions replaced by random ones.

    It is loaded in the process that plays.

    Args:
        folder: where the agent was saved.
        exploration: share of steps with a random action.
        hold: steps for which an action is held, as in dreams of that time stride.
    """

    def __init__(self, folder: Path, exploration: float = 0.1, hold: int = 1) -> None:
        self.folder, self.exploration, self.hold = folder, exploration, hold
        self._agent: Agent | None = None

    def reset(self, env: gymnasium.Env, rng: np.random.Generator) -> None:
        """Begins an episode."""
        if self._agent is None:
            torch.set_num_threads(1)
            self._agent = Agent.load(self.folder)
        self.rng, self.space = rng, env.action_space
        self.space.seed(int(rng.integers(2**31)))
        torch.manual_seed(int(rng.integers(2**31)))
        self._left = 0

    def __call__(self, frame: NDArray[np.uint8]) -> Any:
        """The action for a frame (h, w, 3)."""
        if not self._left:
            self._action, self._left = self._decide(frame), self.hold
        self._left -= 1
        return self._action

    def _decide(self, frame: NDArray[np.uint8]) -> Any:
        assert self._agent is not None
        if self.rng.random() < self.exploration:
            return self.space.sample()
        action = self._agent(frame[None])[0]
        return int(action) if isinstance(self.space, spaces.Discrete) else action


def trainable_space(space: ActionSpace) -> Space:
    """The Gymnasium space; InputError for one that Stable-Baselines3 cannot choose from."""
    native = space.native()
    if not space.size:
        raise InputError("there are no actions, so nothing that an agent could choose: record an environment")
    if isinstance(native, spaces.Dict | spaces.Tuple):
        raise InputError(f"actions in {space}: agents choose from Box, Discrete, MultiDiscrete or MultiBinary")
    return native
