"""Worlds of videos that were only filmed: no actions and no rewards, from the prior to the measures of its dreams."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from imagined import same
from tiny_models import NOTHING, SIZE, film_store, film_world, make_spec, noise_frames, tiny_prior, tiny_world

from vqvideo.data.clips import Clips
from vqvideo.errors import InputError
from vqvideo.evaluation.fidelity import evaluate_fidelity
from vqvideo.evaluation.world import evaluate_world
from vqvideo.imagined_env import no_reward
from vqvideo.models.prior import ConditioningConfig, HeadConfig, Sampling
from vqvideo.storage.records import to_plain
from vqvideo.world import WorldModel

KINDS = [
    *({"conditioning": kind()} for kind in get_args(ConditioningConfig)),
    *({"head": kind()} for kind in get_args(HeadConfig)),
]


def codes(batch: int, steps: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(16, (batch, steps, 2, 2), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("settings", KINDS, ids=lambda settings: type(next(iter(settings.values()))).__name__)
def test_every_prior_learns_and_dreams_without_actions(settings: dict) -> None:
    prior = tiny_prior(make_spec(NOTHING), **settings)
    z, nothing = codes(3, 4), torch.zeros(3, 3, 2, 0)
    rewards = torch.zeros(3, 3)
    prior.train()(z, nothing, rewards, rewards.bool()).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in prior.parameters() if p.requires_grad)
    prior.eval()
    whole = prior(z, nothing, rewards, rewards.bool()).reward
    state = prior.start(z[:, :2], nothing[:, :1])
    step, after = prior.step(state, nothing[:, 0], Sampling(), torch.Generator().manual_seed(0))
    assert step.codes.shape == (3, 2, 2)
    torch.testing.assert_close(step.reward, whole[:, 1], atol=1e-4, rtol=1e-4)
    again, _ = prior.step(after, nothing[:, 0], Sampling(), torch.Generator().manual_seed(0))
    assert again.codes.shape == (3, 2, 2)


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_where_there_are_no_actions_nothing_can_be_guided_by_them(guidance: float) -> None:
    with pytest.raises(InputError, match=rf"guidance is {guidance}, but this prior has no actions to be guided by"):
        film_world(action_dropout=0.5).imagine(noise_frames(1, 1), steps=1, sampling=Sampling(guidance=guidance))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_world_of_videos_imagines_steps_as_it_does_empty_actions(stride: int, tmp_path: Path) -> None:
    world = film_world(stride)
    frames = noise_frames(2, 1 + 2 * stride)
    dream = world.imagine(frames, steps=4, seed=3)
    assert dream.frames.shape == (2, 4 * stride, 3, SIZE, SIZE)
    assert same(dream, world.imagine(frames, np.zeros((2, 6 * stride, 0)), seed=3))
    state, generator = world.start(frames), torch.Generator().manual_seed(3)
    for t in range(4):
        step, state = world.step(state, generator=generator)
        assert torch.equal(step.codes, dream.codes[:, t])
    world.save_pretrained(tmp_path / "world")
    loaded = WorldModel.from_pretrained(tmp_path / "world")
    assert to_plain(loaded.prior.spec) == to_plain(world.prior.spec)
    assert loaded.fingerprint() == world.fingerprint()
    assert same(loaded.imagine(frames, steps=4, seed=3), dream)


def test_actions_are_missed_where_there_are_some() -> None:
    world, frames = tiny_world(), noise_frames(1, 1)
    with pytest.raises(
        InputError, match=r"no actions were given, but this world takes some: flat ones of Discrete\(5\)"
    ):
        world.imagine(frames, steps=2)
    with pytest.raises(InputError, match="no actions were given"):
        world.step(world.start(frames, np.zeros((1, 0, 1))))


@pytest.mark.parametrize("given", [{}, {"steps": 0}, {"steps": 2, "actions": np.zeros((1, 4, 0))}])
def test_a_dream_takes_either_actions_or_a_number_of_steps(given: dict) -> None:
    message = "expected one of them: actions, or, for a world without actions, steps=1|steps is 0, .* of at least 1"
    with pytest.raises(InputError, match=message):
        film_world().imagine(noise_frames(1, 1), **given)


def test_a_world_of_videos_is_measured_without_what_actions_are_worth(tmp_path: Path) -> None:
    world, store = film_world(), film_store(tmp_path)
    clips = Clips(store, "held_out", world.vqvae.clip_length(5))
    report = evaluate_world(world, clips, 1, context=2, sampling=Sampling(), seed=0)
    assert report.psnr.keys() == {"imagined", "repeat", "reconstruction"}
    assert (report.controllability_db, report.reward_rmse) == (None, {})
    figures = report.to_json()
    assert np.isfinite([*figures["psnr_db"], *figures["token_nats"]]).all()
    assert not [name for name in figures if "other_actions" in name or "reward" in name]
    shown = report.table() + report.tables()
    assert "repeat rate" in shown
    assert not [word for word in ("controllability", "other actions", "reward", "nan", "None") if word in shown]
    with pytest.raises(
        InputError, match="the world of films has no actions, under which episodes could be played again"
    ):
        evaluate_fidelity(world, store, horizon=2, context=1)


def test_an_imagined_video_is_an_environment_of_empty_actions(tmp_path: Path) -> None:
    envs = film_world().as_env(3, film_store(tmp_path), context=2, horizon=3, reward=no_reward)
    assert envs.action_space.shape == (3, 0)
    envs.reset(seed=0)
    frames, rewards, *_ = envs.step(envs.action_space.sample())
    assert frames.shape == (3, SIZE, SIZE, 3)
    assert (rewards == 0).all()
    with pytest.raises(InputError, match=r"shape \(3, 1\), expected one of Box"):
        envs.step(np.zeros((3, 1)))
