"""Dreams that are observed as codes: the same dreams, without a frame being drawn."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from imagined import dream, dreams
from tiny_models import tiny_world

from vqvideo.adapters.sb3 import SB3VecEnv
from vqvideo.errors import InputError
from vqvideo.imagined_env.sights import sight
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.world import WorldModel

ACTIONS = np.random.default_rng(0).integers(0, 5, (12, 3))


def played(world: WorldModel, **options: Any) -> list[tuple[Any, ...]]:
    """A reset and steps that go beyond several ends."""
    envs = dreams(world, **options)
    first, _ = envs.reset(seed=3)
    return [(first, *[np.zeros(3)] * 3, {}), *(envs.step(actions) for actions in ACTIONS)]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_the_dream_is_the_one_that_is_drawn(mode: str) -> None:
    drawn, coded = (played(tiny_world(), autoreset_mode=mode, observe=observe) for observe in ("frames", "codes"))
    for (_, *outcome, _), (codes, *same, infos) in zip(drawn, coded, strict=True):
        assert (codes.shape, codes.dtype) == ((3, 2, 2), np.int64)
        assert "frames" not in infos
        for one, two in zip(outcome, same, strict=True):
            np.testing.assert_allclose(one, two)


def test_the_codes_of_an_episode_decode_to_its_frames() -> None:
    world = tiny_world()
    world.prior.termination.bias.data -= 50
    drawn, coded = (played(world, horizon=99, observe=observe) for observe in ("frames", "codes"))
    frames, codes = (np.stack([step[0] for step in steps], axis=1) for steps in (drawn, coded))
    decoded = world.vqvae.decode(torch.from_numpy(codes))[:, :: world.vqvae.stride]
    np.testing.assert_allclose(decoded.movedim(2, -1).numpy() * 255, frames, atol=1)


def test_nothing_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    envs = dreams(tiny_world(), observe="codes")
    envs.reset(seed=0)
    monkeypatch.setattr(VQVAE, "advance", None)
    assert envs.observation_space.contains(envs.step(ACTIONS[0])[0])


def test_last_observations_are_codes_too_and_stable_baselines_gets_them() -> None:
    envs = SB3VecEnv(dreams(tiny_world(), observe="codes", autoreset_mode="SameStep", horizon=1))
    assert envs.reset().shape == (3, 2, 2)
    _, _, dones, infos = envs.step(ACTIONS[0])
    assert dones.all()
    assert all(info["terminal_observation"].shape == (2, 2) and "frames" not in info for info in infos)


def test_a_single_env_shows_codes() -> None:
    env = dream(tiny_world(), observe="codes")
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)


def test_codes_are_not_drawn_and_nothing_else_is_observed() -> None:
    with pytest.raises(InputError, match=r"render_mode is 'rgb_array', but of codes nothing is drawn"):
        dreams(observe="codes", render_mode="rgb_array")
    with pytest.raises(InputError, match="observe is 'code': did you mean codes"):
        dreams(observe="code")
    with pytest.raises(InputError, match="an exported world shows its frames only"):
        sight(cast("WorldModel", object()), "codes")
