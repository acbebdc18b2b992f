"""Dreams that come to figures which are not finite: nobody learns from them, and they end in words that help."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from imagined import MODES, dream, dreams, endless, play, same, some_world

from vqvideo.imagined_env import DivergedError
from vqvideo.models.prior.sampling import Sampling, draw, draw_from_nucleus
from vqvideo.world import WorldModel, WorldStep

NAN = float("nan")


def without_tokens(world: WorldModel) -> None:
    for parameter in world.prior.head.parameters():
        parameter.fill_(NAN)


def without_end(world: WorldModel) -> None:
    world.prior.termination.bias.fill_(NAN)


def without_reward(world: WorldModel) -> None:
    world.prior.reward.out.bias.fill_(NAN)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_p=0.3), Sampling(top_p=1.0), Sampling(temperature=0.0)])
@pytest.mark.parametrize(
    ("spoil", "figure"), [(without_tokens, "entropy"), (without_end, "termination"), (without_reward, "reward")]
)
def test_what_is_not_finite_ends_the_dream_by_name(
    spoil: Callable[[WorldModel], None], figure: str, sampling: Sampling
) -> None:
    world = endless()
    spoil(world)
    envs = dreams(world, sampling=sampling)
    envs.reset(seed=0)
    with pytest.raises(DivergedError, match=rf"env 0 diverged in step 1 of its episode: .*{figure} nan"):
        envs.step(envs.action_space.sample())


@pytest.mark.parametrize("mode", MODES)
def test_the_env_and_its_step_are_named_and_a_reset_begins_anew(mode: str) -> None:
    world, bad = endless(), [False]

    def reward(step: WorldStep) -> torch.Tensor:
        return torch.where(torch.tensor([False, bad[0], False]), torch.inf, step.reward)

    envs, other = dreams(world, autoreset_mode=mode, reward=reward), dreams(world, autoreset_mode=mode)
    play(envs, 2, seed=0)
    bad[0] = True
    with pytest.raises(DivergedError, match=r"env 1 diverged in step 3 .*: reward inf, .* your own reward function"):
        envs.step(envs.action_space.sample())
    bad[0] = False
    assert same(play(envs, 4, seed=1), play(other, 4, seed=1))


def test_a_row_that_begins_anew_is_not_asked_how_its_last_dream_would_have_gone_on() -> None:
    over = np.zeros(3, bool)

    def reward(step: WorldStep) -> torch.Tensor:
        return torch.where(torch.as_tensor(over), NAN, step.reward)

    envs = dreams(some_world(bias=0.0), reward=reward)
    envs.action_space.seed(0)
    envs.reset(seed=0)
    begun = 0
    for _ in range(12):
        _, rewards, terminated, truncated, _ = envs.step(envs.action_space.sample())
        begun += int(over.sum()) if not over.all() else 0
        assert np.isfinite(rewards).all()
        over = terminated | truncated
    assert begun


def test_a_single_dream_says_it_too() -> None:
    env = dream(endless(), reward=lambda step: step.reward / 0)
    env.reset(seed=0)
    with pytest.raises(DivergedError, match="env 0 diverged in step 1"):
        env.step(0)


@pytest.mark.parametrize("bad", [NAN, torch.inf])
def test_numbers_that_are_not_finite_are_still_drawn_codes(bad: float) -> None:
    probability = torch.full((5, 7), bad)
    probability[0] = 1 / 7
    for codes in (draw(probability), draw_from_nucleus(probability, 0.5)):
        assert ((codes >= 0) & (codes < 7)).all()
