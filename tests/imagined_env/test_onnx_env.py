"""Imagined environments dream by exported worlds as by those of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from onnx_worlds import exported, some_actions, world_of
from tiny_models import noise_frames

from vqvideo.errors import InputError
from vqvideo.models.prior import Sampling
from vqvideo.world import make_env, make_vector_env

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = world_of(layers=2)
    where = tmp_path_factory.mktemp("exports") / "world"
    exported(world, where, starts=(noise_frames(4, 5), some_actions(world, 4, 2)))
    return where


def played(envs: Any, steps: int = 12) -> list[Any]:
    """Observations, rewards and ends of a few steps, through resets."""
    seen = [envs.reset(seed=3)[0]]
    for step in range(steps):
        seen += envs.step(np.full(envs.num_envs, step % 5))[:4]
    return seen


def test_gymnasium_makes_an_environment_of_an_exported_folder(folder: Path) -> None:
    import vqvideo.imagined_env  # noqa: F401  (registers the name)

    env = gymnasium.make("vqvideo/Imagined-v0", world=str(folder), horizon=4)
    check_env(env.unwrapped, skip_render_check=True)
    observation, info = env.reset(seed=0)
    observation, reward, _, _, info = env.step(2)
    assert observation.shape == (16, 16, 3)
    assert info["frames"].shape == (2, 16, 16, 3)
    assert np.isfinite(reward)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_equal_seeds_give_equal_episodes_row_by_row(folder: Path, mode: str) -> None:
    options: dict[str, Any] = {"horizon": 3, "autoreset_mode": mode, "context": 2}
    one, two = (played(make_vector_env(folder, num_envs=3, **options)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    alone = played(make_vector_env(folder, num_envs=1, **options))
    assert all(np.array_equal(a[:1], b) for a, b in zip(one, alone, strict=True))


def test_episodes_are_those_of_torch(folder: Path) -> None:
    """With the same random numbers and, as nothing is drawn by chance, the same codes."""
    world = world_of(layers=2)
    starts = noise_frames(4, 5), some_actions(world, 4, 2)
    options: dict[str, Any] = {"horizon": 3, "context": 2, "sampling": Sampling(temperature=0)}
    from vqvideo.imagined_env import ImaginedVectorEnv

    pairs = zip(
        played(ImaginedVectorEnv(world, starts, 3, **options)),
        played(make_vector_env(folder, starts, 3, **options)),
        strict=True,
    )
    for expected, found in pairs:
        if expected.dtype == np.uint8:
            assert np.abs(expected.astype(int) - found).max() <= 1
        else:
            assert found == pytest.approx(expected, abs=1e-4)


def test_what_an_exported_world_cannot_do_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="an exported world dreams on the CPU"):
        make_env(folder, device="cuda")
    env = make_env(folder, sampling=Sampling(top_k=2))
    env.reset(seed=0)
    with pytest.raises(InputError, match="top_k is 2"):
        env.step(0)
