"""Actions and rewards of any size: bounds like those of a float, constant columns, tiny ranges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from imagined import SPACES, dreams, ending
from numpy.typing import NDArray
from stores import make_episode
from tiny_models import STEERING, make_spec, noise_frames, tiny_prior, tiny_world
from torch import Tensor

from vqvideo.data.codes import CodeArrays, encode_episode
from vqvideo.data.config import SegmentConfig
from vqvideo.experiment.prior import action_stats
from vqvideo.models.prior import ActionEncoder, ActionStats
from vqvideo.models.prior.outcomes import RewardHead
from vqvideo.spaces import ActionSpace, as_float32

F32, F64 = float(np.finfo(np.float32).max), float(np.finfo(np.float64).max)
_RNG = np.random.default_rng(0)
_SPREAD = _RNG.uniform(-1, 1, (400, 2))
KINDS: dict[str, tuple[spaces.Box, NDArray[Any]]] = {
    "all numbers": (spaces.Box(-F32, F32, (2,), np.float32), _SPREAD * F32),
    "both ends": (spaces.Box(-F32, F32, (2,), np.float32), np.sign(_SPREAD) * F32),
    "one end": (spaces.Box(-F32, F32, (2,), np.float32), np.full((400, 2), F32)),
    "double precision": (spaces.Box(-F64, F64, (2,), np.float64), _SPREAD * 1e300),
    "small in an enormous range": (spaces.Box(-F32, F32, (2,), np.float32), _SPREAD),
    "constant": (spaces.Box(-1, 1, (2,)), np.full((400, 2), 0.3)),
    "constant far from 0": (spaces.Box(-np.inf, np.inf, (2,)), np.full((400, 2), 1e10 + 0.3)),
    "constantly 0": (spaces.Box(-np.inf, np.inf, (2,)), np.zeros((400, 2))),
    "tiny": (spaces.Box(-1e-6, 1e-6, (2,)), _SPREAD * 1e-6),
    "whole numbers": (spaces.Box(-(2**53), 2**53, (2,), np.int64), _RNG.integers(-(2**53), 2**53, (400, 2))),
}
REWARDS = {"none": 0.0, "small": 1e-30, "large": 1e30, "largest": F32}


def recorded(actions: NDArray[Any], reward: float) -> CodeArrays:
    """Two segments of 100 latent steps, whose rewards reach from -`reward` to `reward`."""
    rewards = as_float32(np.clip(_RNG.uniform(-1.5, 1.5, 200), -1, 1) * reward)
    shape, starts = (200, 2, 2), np.array([0, 100, 200])
    grouped = as_float32(actions).reshape(shape)
    return CodeArrays(np.zeros(shape, np.int32), grouped, rewards, np.zeros(200, bool), starts, np.array([0, 198]))


def batch(arrays: CodeArrays, step: int) -> dict[str, Tensor]:
    rows = (step * 7 + np.arange(8) * 11) % 190
    windows = rows[:, None] + np.arange(3)
    return {
        "codes": torch.randint(16, (8, 4, 2, 2)),
        "actions": torch.from_numpy(arrays.actions[windows]),
        "rewards": torch.from_numpy(arrays.rewards[windows]),
        "terminated": torch.zeros(8, 3, dtype=torch.bool),
    }


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_prior_trains_on_numbers_of_any_size(kind: str, reward: str) -> None:
    native, actions = KINDS[kind]
    space = ActionSpace.from_gymnasium(native)
    space.validate(actions)
    arrays = recorded(actions, REWARDS[reward])
    stats = action_stats([arrays])
    assert np.isfinite([*stats.mean, *stats.std, stats.reward_low, stats.reward_high]).all()
    prior = tiny_prior(make_spec(space, stats=stats)).train()
    optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-3)
    for step in range(8):
        output = prior(**batch(arrays, step))
        output.loss.backward()
        assert output.loss.isfinite()
        assert output.reward.isfinite().all()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "constant" not in kind and kind != "one end"])
def test_actions_of_any_size_are_told_apart(kind: str) -> None:
    native, actions = KINDS[kind]
    space, arrays = ActionSpace.from_gymnasium(native), recorded(actions, 0.0)
    encoder = ActionEncoder(space, action_stats([arrays]), stride=2, dim=16)
    assert encoder(torch.from_numpy(arrays.actions)[None]).std(dim=1).mean() > 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_any_action_of_an_enormous_space_leads_to_a_dream(kind: str, dtype: torch.dtype) -> None:
    native, actions = KINDS[kind]
    space = ActionSpace.from_gymnasium(native)
    world = tiny_world(space=space)
    spec = replace(world.prior.spec, stats=action_stats([recorded(actions, 1e30)]))
    world.prior = tiny_prior(spec, world.vqvae.codebook)
    world.requires_grad_(False).to(dtype)
    ends = np.stack([[column.low for column in space.columns], [column.high for column in space.columns]])
    flat = np.nan_to_num(ends, posinf=F64, neginf=-F64)[None].repeat(2, axis=0).repeat(2, axis=1)
    dream = world.imagine(noise_frames(2, 1), flat, seed=0)
    assert dream.rewards.isfinite().all()
    assert dream.entropy.isfinite().all()
    assert dream.termination.isfinite().all()


def test_an_imagined_env_takes_the_actions_of_an_enormous_space() -> None:
    box = ActionSpace.from_gymnasium(spaces.Box(-F32, F32, (2,), np.float32))
    envs = dreams(ending(tiny_world(space=box), -100.0))
    envs.reset(seed=0)
    envs.action_space.seed(0)
    for _ in range(4):
        _, rewards, _, _, infos = envs.step(envs.action_space.sample())
        assert np.isfinite(rewards).all()
        assert np.isfinite(infos["entropy"]).all()


@pytest.mark.parametrize(("low", "high"), [(-F32, F32), (0.0, F32), (F32, F32), (-1e30, 1.0), (1e30, 1.0000001e30)])
def test_a_reward_head_can_say_rewards_of_any_size(low: float, high: float) -> None:
    head = RewardHead(4, low, high)
    for reward in (low, high):
        target = head.targets(torch.tensor([reward]))
        assert target.sum().item() == pytest.approx(1)
        assert head.mean(target.log()).item() == pytest.approx(reward, rel=2e-3)
    assert head.mean(torch.zeros(1, 64)).isfinite().all()


def test_rewards_of_a_latent_step_that_are_too_large_together_are_the_largest() -> None:
    episode = make_episode(4, rewards=np.full(4, F32, np.float32), actions=np.full((4, 1), 1e300))

    class One:
        stride = 2

        def clip_length(self, latent_steps: int) -> int:
            return 1 + 2 * (latent_steps - 1)

        def encode(self, frames: Tensor) -> Tensor:
            return torch.zeros(len(frames), 1 + (frames.shape[1] - 1) // 2, 1, 1, dtype=torch.int64)

    arrays = encode_episode(One(), episode, SegmentConfig(latent_steps=3, every=1), torch.device("cpu"))
    assert arrays.rewards.tolist() == [0.0, F32, F32]
    assert arrays.actions.max() == F32


def test_a_column_that_was_hardly_varied_is_put_to_the_scale_of_its_bounds() -> None:
    """So that the rounding of a constant does not look like a choice."""
    stats = ActionStats((0.5, 1.0), (1e-9, 1e-9), 0.0, 1.0)
    assert ActionEncoder(STEERING, stats, stride=1, dim=8).std.tolist() == pytest.approx([1e-3, 1e-3])


@pytest.mark.parametrize("space", [space for space in SPACES.values() if space.size], ids=str)
def test_usual_actions_are_put_to_scale_as_in_worlds_that_are_saved(space: ActionSpace) -> None:
    stats = ActionStats((0.3,) * space.size, (0.7,) * space.size, 0.0, 1.0)
    encoder = ActionEncoder(space, stats, stride=1, dim=8)
    assert torch.equal(encoder.std, torch.full((space.size,), 0.7))
    if not any(column.categories for column in space.columns):
        actions = torch.rand(50, 1, 1, space.size)
        expected = encoder.mlp(((actions - encoder.mean) / encoder.std)[:, :, 0])
        assert torch.equal(encoder(actions), expected)
