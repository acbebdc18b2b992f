"""Imagined environments under the rules of Gymnasium: its checker, ours, and its wrappers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import vector as vector_wrappers
from imagined import MODES, SPACES, dream, dreams, some_starts, some_world
from tiny_models import tiny_store
from vector_checker import check_vector_env

KINDS = [("discrete", 1), ("discrete", 2), ("box", 2), ("dict", 1), ("tuple", 1)]
"""Space of the actions and time stride."""


# ---------------------------------------------------------------- checkers


@pytest.mark.parametrize(("space", "stride"), KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_a_batch_does_what_its_envs_do_one_by_one(mode: str, space: str, stride: int) -> None:
    world = some_world(stride, SPACES[space], bias=-1.0)
    ends = check_vector_env(
        lambda: dreams(world, 2, horizon=3, autoreset_mode=mode), lambda: dream(world, horizon=3), steps=6, seed=0
    )
    assert min(ends) > 0


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_from_a_context_does_too(mode: str) -> None:
    world = some_world()
    options: dict[str, Any] = {"starts": some_starts(world, context=3), "horizon": 4}
    check_vector_env(
        lambda: dreams(world, 3, autoreset_mode=mode, **options), lambda: dream(world, **options), steps=5, seed=1
    )


@pytest.mark.parametrize(("space", "stride"), KINDS)
def test_gymnasiums_checker_has_nothing_to_say(space: str, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It also tries all ways to render, a window among them."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    world = some_world(stride, SPACES[space])
    named = {"world": world, "starts": some_starts(world), "render_mode": "rgb_array", "horizon": 5}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*symmetric and normalized")  # the recorded env's own affair
        check_env(gymnasium.make("vqvideo/Imagined-v0", **named).unwrapped)


def test_made_by_name_it_plays_under_gymnasiums_own_wrappers_without_a_warning(tmp_path: Path) -> None:
    """`make` adds one that checks each call and one that checks their order."""
    named = {"world": some_world(), "starts": tiny_store(tmp_path)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make("vqvideo/Imagined-v0", max_episode_steps=3, **named)
        env.action_space.seed(0)
        for _ in range(3):
            env.reset()
            over = False
            while not over:
                _, _, terminated, truncated, _ = env.step(env.action_space.sample())
                over = terminated or truncated
        with pytest.raises(gymnasium.error.ResetNeeded):
            gymnasium.make("vqvideo/Imagined-v0", **named).step(0)


# ---------------------------------------------------------------- wrappers


Wrapped = tuple[Callable[[Any], Any], Callable[[Any], Any]]


def negative(observations: np.ndarray) -> np.ndarray:
    return 255 - observations


BOTH: dict[str, Wrapped] = {
    "grayscale": (vector_wrappers.GrayscaleObservation, wrappers.GrayscaleObservation),
    "transformed at once": (
        lambda envs: vector_wrappers.TransformObservation(envs, negative),
        lambda env: wrappers.TransformObservation(env, negative, None),
    ),
    "transformed in place": (
        lambda envs: vector_wrappers.VectorizeTransformObservation(
            envs, wrappers.TransformObservation, func=negative, observation_space=None
        ),
        lambda env: wrappers.TransformObservation(env, negative, None),
    ),
    "clipped rewards": (
        lambda envs: vector_wrappers.ClipReward(envs, -0.1, 0.1),
        lambda env: wrappers.ClipReward(env, -0.1, 0.1),
    ),
}
"""Wrappers of a batch, and what they are for a single env."""


@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
@pytest.mark.parametrize("name", BOTH)
def test_a_wrapped_batch_does_what_wrapped_envs_do_one_by_one(name: str, mode: str) -> None:
    """Also where a wrapper writes into the observations, and only some rows begin anew after that."""
    world = some_world(stride=1)
    of_batch, of_one = BOTH[name]
    check_vector_env(
        lambda: of_batch(dreams(world, 2, horizon=3, autoreset_mode=mode)),
        lambda: of_one(dream(world, horizon=3)),
        steps=5,
        seed=0,
    )
