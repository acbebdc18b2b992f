"""A trained agent: acts on frames or codes, goes to disk without a pickle, and records episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import gymnasium
import numpy as np
import torch
from gymnasium import Space, spaces
from numpy.typing import NDArray
from torch import Tensor

from vqvideo.agents.memory import Memory, MemoryView, View, view_from_json
from vqvideo.agents.views import CodeStream, CodeView
from vqvideo.errors import InputError
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.spaces import ActionSpace
from vqvideo.storage.checkpoint import config_errors, load_into, load_model, model_tensors, save_model

if TYPE_CHECKING:
    from stable_baselines3.common.policies import ActorCriticPolicy

KIND = "agent"


class Agent:
    """Chooses actions.

    Args:
        policy: Stable-Baselines3's.
        view: what it looks at.
        space: of the actions.
    """

    def __init__(self, policy: ActorCriticPolicy, view: View, space: ActionSpace) -> None:
        self.policy, self.view, self.space = policy, view, space

    @classmethod
    def untrained(cls, view: View, space: ActionSpace) -> Self:
        """An agent with random weights.

        Raises:
            InputError: actions of a nested space, which Stable-Baselines3 does not choose.
        """
        policy = view.policy(view.space, trainable_space(space), lambda _: 0.0, **view.architecture)
        view.begin(policy)
        return cls(policy, view, space)

    @property
    def coded(self) -> bool:
        """Whether it looks at codes."""
        view = self.view.now if isinstance(self.view, MemoryView) else self.view
        return isinstance(view, CodeView)

    def __call__(self, observations: Any, *, greedy: bool = False) -> NDArray[Any]:
        """Actions (b, ...) drawn for b observations, frames (h, w, 3) uint8 of any size, codes (h, w) or what `Memory`
        gives of either, whichever it looks at; the likeliest ones if `greedy`.
        """
        actions, _ = self.policy.predict(self.view.prepare(observations), deterministic=greedy)
        return actions

    def save(self, folder: Path) -> None:
        """Writes a folder of JSON and safetensors, whole or not at all."""
        config = {**self.view.to_json(), "action_space": self.space.to_json()}
        save_model(folder, KIND, config, policy_tensors(self.policy))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The agent of a folder.

        Raises:
            InputError: no agent there, or a damaged one.
        """
        saved = load_model(folder, KIND)
        with config_errors(folder):
            space = ActionSpace.from_json(saved.config["action_space"])
            view = view_from_json(saved.config, space)
            agent = cls.untrained(view, space)
        load_policy(agent.policy, saved.tensors, folder)
        return agent


_SHARED, _NAMES = "features_extractor.", ("pi_features_extractor.", "vf_features_extractor.")
"""One network that Stable-Baselines3's policy holds under three names."""


def policy_tensors(policy: ActorCriticPolicy) -> dict[str, Tensor]:
    """Parameters and buffers, each once."""
    return {name: value for name, value in model_tensors(policy).items() if not name.startswith(_NAMES)}


def load_policy(policy: ActorCriticPolicy, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Puts back what `policy_tensors` gave; InputError, which names `source`, if it does not fit."""
    own = {name.removeprefix(_SHARED): value for name, value in tensors.items() if name.startswith(_SHARED)}
    shared = {other + name: value for other in _NAMES for name, value in own.items()}
    load_into(policy, {**shared, **tensors}, source)


class AgentPolicy:
    """The agent of a folder as a policy that records episodes, some of its actions replaced by random ones.

    It is loaded in the process that plays.

    Args:
        folder: where the agent was saved.
        exploration: share of steps with a random action.
        hold: steps for which an action is held, as in dreams of that time stride.
        tokenizer: where the tokenizer is, for an agent that looks at codes.
    """

    def __init__(self, folder: Path, exploration: float = 0.1, hold: int = 1, tokenizer: Path | None = None) -> None:
        self.folder, self.exploration, self.hold, self.tokenizer = folder, exploration, hold, tokenizer
        self._agent: Agent | None = None

    def reset(self, env: gymnasium.Env, rng: np.random.Generator) -> None:
        """Begins an episode."""
        if self._agent is None:
            torch.set_num_threads(1)
            self._agent = Agent.load(self.folder)
            if self._agent.coded:
                if self.tokenizer is None:
                    raise InputError(f"{self.folder} looks at codes: name the tokenizer that makes them")
                self._vqvae = VQVAE.from_pretrained(self.tokenizer)
        self.rng, self.space = rng, env.action_space
        self.space.seed(int(rng.integers(2**31)))
        torch.manual_seed(int(rng.integers(2**31)))
        view, coded = self._agent.view, self._agent.coded
        self._see: Callable[[list[NDArray[np.uint8]]], NDArray[Any]] = CodeStream(self._vqvae) if coded else _newest
        self._memory = Memory(view, 1) if isinstance(view, MemoryView) else None
        self._action: Any = None
        self._frames: list[NDArray[np.uint8]] = []
        self._left = 0

    def __call__(self, frame: NDArray[np.uint8]) -> Any:
        """The action for a frame (h, w, 3)."""
        self._frames.append(frame.copy())
        if not self._left:
            self._action, self._left = self._decide(self._observation()), self.hold
            self._frames = []
        self._left -= 1
        return self._action

    def _observation(self) -> Any:
        seen = self._see(self._frames)
        if self._memory is None:
            return seen
        if self._action is None:
            self._memory.begin(0, seen)
        else:
            self._memory.add([self._action], seen[None])
        return self._memory[0]

    def _decide(self, observation: Any) -> Any:
        assert self._agent is not None
        if self.rng.random() < self.exploration:
            return self.space.sample()
        action = self._agent([observation])[0]
        return int(action) if isinstance(self.space, spaces.Discrete) else action


def _newest(frames: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return frames[-1]


def trainable_space(space: ActionSpace) -> Space:
    """The Gymnasium space; InputError for one that Stable-Baselines3 cannot choose from."""
    native = space.native()
    if not space.size:
        raise InputError("there are no actions, so nothing that an agent could choose: record an environment")
    if isinstance(native, spaces.Dict | spaces.Tuple):
        raise InputError(f"actions in {space}: agents choose from Box, Discrete, MultiDiscrete or MultiBinary")
    return native
