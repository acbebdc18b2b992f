"""Agents that remember: the newest latent steps of an episode, and the actions between them.

One frame cannot tell where a ball flies; two can, and the actions tell what was the agent's own doing. A window of
steps is a memory without a state: what an agent does depends on what is in it, and on nothing before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from vqvideo.agents.config import AgentStage
from vqvideo.agents.views import CodeView, FrameView, plain_view, plain_view_from_json
from vqvideo.errors import MissingExtraError
from vqvideo.imagined_env.starts import Contexts
from vqvideo.models.imagination import Imaginer
from vqvideo.models.pixels import to_uint8
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.spaces import ActionSpace

try:
    from stable_baselines3.common.policies import ActorCriticPolicy, MultiInputActorCriticPolicy
    from stable_baselines3.common.preprocessing import preprocess_obs
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
except ModuleNotFoundError as error:
    raise MissingExtraError(error, "agent") from error

_BATCH = 64
"""Contexts that are read at once."""


class MemoryFeatures(BaseFeaturesExtractor):
    """What another network makes of all remembered observations, one upon the other, and the actions beside it.

    Args:
        observation_space: of a `MemoryView`.
        looks: class of the other network.
        settings: its arguments.
    """

    def __init__(
        self, observation_space: spaces.Dict, looks: type[BaseFeaturesExtractor], settings: Mapping[str, Any]
    ) -> None:
        seen, actions = observation_space["seen"], observation_space["actions"]
        assert isinstance(seen, spaces.Box)
        assert actions.shape is not None
        planes = (-1, *seen.shape[-2:])
        stacked = spaces.Box(seen.low.reshape(planes), seen.high.reshape(planes), dtype=seen.dtype.type)
        network = looks(stacked, **settings)
        super().__init__(observation_space, network.features_dim + int(np.prod(actions.shape)))
        self.network, self.stacked = network, stacked

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """`seen` (b, m + 1, ..., h, w) and `actions` (b, m, a), as floats -> (b, features_dim)."""
        seen = preprocess_obs(observations["seen"].flatten(1, -3), self.stacked)
        assert isinstance(seen, Tensor)
        return torch.cat([self.network(seen), observations["actions"].flatten(1)], dim=1)

    @property
    def codebook(self) -> Tensor:
        """That of the other network."""
        return self.network.get_buffer("codebook")


class Past(NamedTuple):
    """What came before the first observation of an episode."""

    seen: NDArray[Any]
    """(n, ...): observations as the network gets them, the newest one last."""
    actions: NDArray[np.float32]
    """(n, a): number i led from observation i to the next."""


@dataclass(frozen=True)
class MemoryView:
    """The observations of the newest m + 1 latent steps, and the m actions between them."""

    policy: ClassVar[type[ActorCriticPolicy]] = MultiInputActorCriticPolicy
    now: FrameView | CodeView
    """What it sees of each."""
    steps: int
    """m."""
    actions: ActionSpace
    """Of the actions."""

    @property
    def space(self) -> spaces.Dict:
        """Of what the network gets."""
        low, high = (np.repeat(end[None], self.steps + 1, axis=0) for end in (self.now.space.low, self.now.space.high))
        acted = spaces.Box(-np.inf, np.inf, (self.steps, spaces.flatdim(self.actions.native())), np.float32)
        return spaces.Dict({"seen": spaces.Box(low, high, dtype=self.now.space.dtype.type), "actions": acted})

    @property
    def architecture(self) -> dict[str, Any]:
        """As of `FrameView`."""
        own = self.now.architecture
        looks, settings = own["features_extractor_class"], own.get("features_extractor_kwargs", {})
        kwargs = {"looks": looks, "settings": settings}
        return {**own, "features_extractor_class": MemoryFeatures, "features_extractor_kwargs": kwargs}

    def prepare(self, observations: Any) -> dict[str, NDArray[Any]]:
        """What `Memory` gave of some agents, as a batch or one by one, as the network gets it."""
        if isinstance(observations, Mapping):
            return dict(observations)
        return {name: np.stack([each[name] for each in observations]) for name in self.space}

    def begin(self, policy: ActorCriticPolicy) -> None:
        """As of `CodeView`."""
        self.now.begin(policy)

    def to_json(self) -> dict[str, Any]:
        """Plain settings."""
        return {**self.now.to_json(), "memory": self.steps}

    def flat(self, action: Any) -> NDArray[np.float32]:
        """A native action (a,) as the network gets it: categories are one-hot."""
        return np.asarray(spaces.flatten(self.actions.native(), action), np.float32)


View = FrameView | CodeView | MemoryView


def view_of(world: Imaginer, stage: AgentStage) -> View:
    """What an agent of these settings looks at."""
    now = plain_view(world.vqvae, stage.observe)
    return MemoryView(now, stage.memory, world.action_space) if stage.memory else now


def view_from_json(config: dict[str, Any], actions: ActionSpace) -> View:
    """The inverse of `to_json`, of all kinds; agents that were saved before there was a memory have none."""
    now = plain_view_from_json(config)
    return MemoryView(now, int(config["memory"]), actions) if "memory" in config else now


class Memory:
    """The windows of n agents side by side.

    Of what is before an episode's first observation nothing is known, unless a `Past` tells: the oldest observation
    that is known stands there, and zeros stand for the actions.

    Args:
        view: of these agents.
        count: n.
    """

    def __init__(self, view: MemoryView, count: int) -> None:
        self.view = view
        space = view.space
        self._windows = {name: np.zeros((count, *box.shape), box.dtype) for name, box in space.items()}  # type: ignore[misc]

    def begin(self, row: int, observation: NDArray[Any], past: Past | None = None) -> None:
        """A new episode, of which nothing remains but this.

        Args:
            row: of the agent.
            observation: the first one.
            past: what came before.
        """
        seen, actions = self._windows["seen"][row], self._windows["actions"][row]
        known = min(self.view.steps, len(past.seen)) if past else 0
        seen[-1], actions[:] = self.view.now.prepare(observation[None])[0], 0
        if past and known:
            seen[-1 - known : -1], actions[-known:] = past.seen[-known:], past.actions[-known:]
        seen[: -1 - known] = seen[-1 - known]

    def add(self, actions: Sequence[Any] | NDArray[Any], observations: NDArray[Any]) -> None:
        """A step of all: native actions (n, ...), and the observations (n, ...) that they led to."""
        newest = {
            "seen": self.view.now.prepare(observations),
            "actions": np.stack([self.view.flat(action) for action in actions]),
        }
        for name, window in self._windows.items():
            window[:, :-1] = window[:, 1:]
            window[:, -1] = newest[name]

    def __getitem__(self, row: int | slice) -> dict[str, NDArray[Any]]:
        """What some of them observe."""
        return {name: window[row].copy() for name, window in self._windows.items()}


# ---------------------------------------------------------------- environments


class Remembered(gymnasium.Wrapper):
    """An environment as an agent that remembers meets it.

    Args:
        env: observes what the agent sees of one step.
        view: of the agent.
        pasts: what came before an episode, by the `start` in the info of its reset.
    """

    def __init__(self, env: gymnasium.Env, view: MemoryView, pasts: Mapping[int, Past] | None = None) -> None:
        super().__init__(env)
        self.observation_space, self.pasts, self.memory = view.space, pasts or {}, Memory(view, 1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self.memory.begin(0, observation, self.pasts.get(info.get("start", -1)))
        return self.memory[0], info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.memory.add([action], observation[None])
        return self.memory[0], float(reward), terminated, truncated, info


class RememberedVec(VecEnvWrapper):
    """As `Remembered`, for environments of Stable-Baselines3 that stand side by side.

    Args:
        envs: observe what the agents see of one step.
        view: of the agents.
        pasts: what came before an episode, by the `start` in the info of its reset.
    """

    def __init__(self, envs: VecEnv, view: MemoryView, pasts: Mapping[int, Past]) -> None:
        super().__init__(envs, view.space)
        self.pasts, self.memory = pasts, Memory(view, envs.num_envs)

    def reset(self) -> dict[str, NDArray[Any]]:
        observations = self.venv.reset()
        for row in range(self.num_envs):
            self._begin(row, observations)
        return self.memory[:]

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = actions
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        assert isinstance(observations, np.ndarray)
        over, last = np.flatnonzero(dones).tolist(), observations.copy()
        for row in over:
            last[row] = infos[row]["terminal_observation"]
        self.memory.add(self._actions, last)
        for row in over:
            infos[row]["terminal_observation"] = self.memory[row]
            self._begin(row, observations)
        return self.memory[:], rewards, dones, infos

    def _begin(self, row: int, observations: Any) -> None:
        past = self.pasts.get(self.venv.reset_infos[row].get("start", -1))
        self.memory.begin(row, observations[row], past)


# ---------------------------------------------------------------- what dreams have seen when they begin


@torch.no_grad()
def pasts(vqvae: VQVAE, contexts: Contexts, view: MemoryView, *, real: bool = False) -> dict[int, Past]:
    """Of each context the latent steps before the newest one, by its number.

    Args:
        vqvae: the tokenizer.
        contexts: which dreams begin with.
        view: of the agent.
        real: what the real environment shows, instead of what a dream would have shown.
    """
    seen = np.concatenate([_seen(vqvae, frames, view, real) for frames in contexts.frames.split(_BATCH)])
    # Of an action for each frame the last one counts, as the one that is held for all in dreams.
    flat = contexts.actions[:, vqvae.stride - 1 :: vqvae.stride].double().numpy()
    acted = [[view.flat(view.actions.unflatten(action)) for action in row] for row in flat]
    numbers, width = contexts.source.tolist(), view.space["actions"].shape[-1]  # type: ignore[index]
    return {
        number: Past(before, np.array(row, np.float32).reshape(-1, width))
        for number, before, row in zip(numbers, seen, acted, strict=True)
    }


def _seen(vqvae: VQVAE, frames: Tensor, view: MemoryView, real: bool) -> NDArray[Any]:
    """Contexts of frames (r, 1 + s c, 3, h, w) as the network gets their first c latent steps, (r, c, ...)."""
    codes = vqvae.encode(frames.to(vqvae.codebook.device))
    if isinstance(view.now, CodeView):
        return codes[:, :-1].cpu().numpy()
    shown = frames if real else vqvae.decode(codes)
    return to_uint8(shown[:, : -1 : vqvae.stride]).cpu().numpy()
