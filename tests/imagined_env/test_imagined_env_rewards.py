"""What dreams pay where the reward of the recorded steps never varied, and where it was 0."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from imagined import dream, dreams, some_starts
from tiny_models import noise_frames, tiny_world

from vqvideo.imagined_env import no_reward
from vqvideo.models.prior import Sampling
from vqvideo.world import WorldModel

STEPS = np.zeros(3, int)


@pytest.mark.parametrize("two_hot", ["value", "symlog"])
@pytest.mark.parametrize("sampling", [None, Sampling(temperature=0)], ids=["drawn", "likeliest"])
def test_a_reward_that_never_varied_is_paid_exactly_at_every_door(two_hot: str, sampling: Sampling | None) -> None:
    """A pole earns 1 for every step that it stands: 2 for a latent step of 2 frames."""
    world = tiny_world(rewards=(2.0, 2.0), two_hot=two_hot)
    for output in ("numpy", "torch"):
        envs = dreams(world, output=output, sampling=sampling)
        envs.reset(seed=0)
        assert envs.step(STEPS)[1].tolist() == [2.0, 2.0, 2.0]
    env = dream(world, sampling=sampling)
    env.reset(seed=0)
    assert env.step(0)[1] == 2.0
    told = world.imagine(noise_frames(2, 3), torch.zeros(2, 8, 1), sampling=sampling, seed=0)
    assert told.rewards.tolist() == [[2.0] * 3] * 2


def test_by_name_such_a_world_is_an_environment(tmp_path: Path) -> None:
    tiny_world(rewards=(2.0, 2.0)).save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        world = WorldModel.from_pretrained(tmp_path)
        env = gymnasium.make("vqvideo/Imagined-v0", world=world, starts=some_starts(world))
        env.reset(seed=0)
        assert env.step(0)[1] == 2.0


def test_a_world_without_rewards_pays_0_and_says_what_to_do() -> None:
    world = tiny_world(rewards=(0.0, 0.0))
    with pytest.warns(UserWarning, match=r"every reward is 0 .* reward=function of a WorldStep.*no_reward pays 0"):
        envs = dreams(world)
    envs.reset(seed=0)
    assert envs.step(STEPS)[1].tolist() == [0.0, 0.0, 0.0]


def test_that_is_said_once() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(3):
            dreams(tiny_world(rewards=(0.0, 0.0)))
    assert len(told) == 1


@pytest.mark.parametrize("reward", [no_reward, lambda step: step.entropy], ids=["none", "own"])
def test_a_reward_of_ones_own_replaces_the_one_that_is_missing_without_a_warning(reward: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = dreams(tiny_world(rewards=(0.0, 0.0)), reward=reward)
    envs.reset(seed=0)
    _, rewards, _, _, infos = envs.step(STEPS)
    np.testing.assert_allclose(rewards, infos["entropy"] * (reward is not no_reward), rtol=1e-6)
