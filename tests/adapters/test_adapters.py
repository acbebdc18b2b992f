"""The dream as other libraries want it: Stable-Baselines3 and TorchRL see what Gymnasium sees."""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from imagined import SPACES, dream, dreams, endless, some_world
from tiny_models import FIVE, STEERING

from vqvideo.errors import InputError


def sb3(envs: Any = None, **options: Any) -> Any:
    """The batch for Stable-Baselines3."""
    pytest.importorskip("stable_baselines3", reason="pip install 'vqvideo[agent]'")
    from vqvideo.adapters.sb3 import SB3VecEnv

    return SB3VecEnv(dreams(autoreset_mode="SameStep", **options) if envs is None else envs)


def torchrl(envs: Any) -> Any:
    """The batch for TorchRL."""
    pytest.importorskip("torchrl", reason="pip install 'vqvideo[torchrl]'")
    import torchrl

    torchrl.logger.setLevel("ERROR")
    from vqvideo.adapters.torchrl import torchrl_env

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torchrl_env(envs)


@pytest.mark.parametrize("kind", [InputError, ImportError])
@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("adapters.sb3", "stable_baselines3", "agent"),
        ("agents.views", "stable_baselines3", "agent"),
        ("agents.learning", "stable_baselines3", "agent"),
        ("adapters.torchrl", "torchrl", "torchrl"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    name: str, package: str, extra: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [package, *(loaded for loaded in sys.modules if loaded.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"vqvideo.{name}", raising=False)
    with pytest.raises(kind, match=rf"{package}.*pip install 'vqvideo\[{extra}\]'"):
        importlib.import_module(f"vqvideo.{name}")


# ---------------------------------------------------------------- Stable-Baselines3


def test_their_checker_has_nothing_against_the_single_env() -> None:
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_checker import check_env

    for space in (FIVE, STEERING):
        check_env(dream(some_world(space=space), render_mode="rgb_array"), warn=False)


def test_a_vec_env_gives_what_a_batch_without_autoreset_gives() -> None:
    """Last observations, first observations of the next episodes, and which ends were the horizon's."""
    world = some_world()
    vec, plain = sb3(dreams(world, autoreset_mode="SameStep")), dreams(world, autoreset_mode="Disabled")
    assert vec.seed(3) == [3, 4, 5]
    first, first_infos = plain.reset(seed=3)
    assert np.array_equal(vec.reset(), first)
    assert vec.reset_infos == [{"start": int(start)} for start in first_infos["start"]]
    kinds = set()
    for t in range(25):
        action = np.array([t, t + 1, 2 * t]) % 5
        observations, rewards, dones, infos = vec.step(action)
        expected, plain_rewards, terminated, truncated, plain_infos = plain.step(action)
        over = terminated | truncated
        assert (rewards.dtype, rewards.shape) == (np.float32, (3,))
        assert np.array_equal(rewards, plain_rewards.astype(np.float32))
        assert (dones.dtype, dones.tolist()) == (bool, over.tolist())
        for i, info in enumerate(infos):
            assert ("terminal_observation" in info) == over[i]
            assert info["TimeLimit.truncated"] is bool(truncated[i])
            assert np.array_equal(info.get("terminal_observation", observations[i]), expected[i])
            assert np.array_equal(info["frames"], plain_infos["frames"][i])
            assert info["frames"].base is not None  # a view: nothing is copied for it
            for name in ("entropy", "termination"):
                assert type(info[name]) is float
                assert info[name] == plain_infos[name][i]
            kinds.add((bool(terminated[i]), bool(truncated[i])))
        if over.any():
            begun, begun_infos = plain.reset(options={"reset_mask": over})
            assert np.array_equal(observations, begun)
            for i in np.flatnonzero(over):
                assert vec.reset_infos[i] == {"start": begun_infos["start"][i]}
    assert kinds == {(False, False), (True, False), (False, True)}


def test_seeds_and_options_of_a_vec_env_count_for_one_reset() -> None:
    vec, frames = sb3(), np.full((1, 16, 16, 3), 90, np.uint8)
    vec.seed(3)
    vec.set_options({"frames": frames})
    first = vec.reset().copy()
    assert [info["start"] for info in vec.reset_infos] == [-1, -1, -1]
    assert np.array_equal(first, dreams().reset(options={"frames": frames})[0])
    second, third = vec.reset().copy(), vec.reset().copy()
    assert all(info["start"] >= 0 for info in vec.reset_infos)
    assert not np.array_equal(second, third)
    vec.seed(3)
    again = vec.reset()
    assert np.array_equal(again, dreams().reset(seed=3)[0])


def test_options_that_differ_between_envs() -> None:
    vec = sb3()
    each = [np.full((1, 16, 16, 3), value, np.uint8) for value in (10, 120, 240)]
    vec.set_options([{"frames": frames} for frames in each])
    assert np.array_equal(vec.reset(), dreams().reset(options={"frames": np.stack(each)})[0])
    vec.set_options([{"frames": each[0]}, {}, {}])
    with pytest.raises(InputError, match="some envs have other reset options than others"):
        vec.reset()
    vec.set_options([{"frames": each[0]}, {"frames": each[0]}, {"frames": each[0][0]}])
    with pytest.raises(InputError, match="reset option frames differs in shape between envs"):
        vec.reset()


def test_attributes_and_methods_of_a_vec_env() -> None:
    vec = sb3(render_mode="rgb_array")
    assert vec.get_attr("num_envs") == [3, 3, 3]
    assert vec.get_attr("action_space", [0, 2]) == [vec.envs.single_action_space] * 2
    assert vec.get_attr("observation_space", 1) == [vec.observation_space]
    assert vec.render_mode == "rgb_array"
    assert vec.has_attr("world")
    assert not vec.has_attr("wheels")
    vec.set_attr("colour", "red")
    assert vec.get_attr("colour") == ["red"] * 3
    vec.set_attr("colour", "blue", range(3))
    with pytest.raises(InputError, match=r"colour cannot be set for envs \[0, 2\] alone"):
        vec.set_attr("colour", "red", [0, 2])
    assert vec.envs.colour == "blue"
    assert vec.env_is_wrapped(object) == [False] * 3
    assert vec.env_is_wrapped(object, [1]) == [False]


def test_a_vec_env_shows_its_newest_frames() -> None:
    vec = sb3(render_mode="rgb_array")
    observations = vec.reset()
    assert np.array_equal(np.stack(vec.get_images()), observations)
    assert np.array_equal(np.stack(vec.env_method("render", indices=[2, 0])), observations[[2, 0]])
    tiled = vec.render()
    assert tiled.shape == (32, 32, 3)
    assert np.array_equal(tiled[:16, 16:], observations[1])
    silent = sb3()
    silent.reset()
    assert silent.get_images() == silent.env_method("render") == [None] * 3
    with pytest.raises(InputError, match="reset gave tuple, expected one result for each of the 3 envs"):
        silent.env_method("reset")


@pytest.mark.parametrize("space", ["discrete", "box"])
def test_ppo_learns_in_a_dream(space: str) -> None:
    vec = sb3(world=some_world(space=SPACES[space]), num_envs=2)
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecMonitor

    ppo = PPO("MlpPolicy", VecMonitor(vec), n_steps=8, batch_size=8, n_epochs=1, seed=0, device="cpu")
    before = [parameter.detach().clone() for parameter in ppo.policy.parameters()]
    ppo.learn(32)
    assert ppo.num_timesteps == 32
    assert len(ppo.ep_info_buffer) > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, ppo.policy.parameters(), strict=True))
    assert all(torch.isfinite(parameter).all() for parameter in ppo.policy.parameters())


@pytest.mark.parametrize(
    "options", [{"autoreset_mode": "NextStep"}, {"autoreset_mode": "Disabled"}, {"output": "torch"}]
)
def test_a_vec_env_wants_autoreset_in_the_same_step_and_numpy(options: dict[str, str]) -> None:
    envs = dreams(**({"autoreset_mode": "SameStep"} | options))
    with pytest.raises(InputError, match="make them with autoreset_mode='SameStep', output='numpy'"):
        sb3(envs)
    with pytest.raises(InputError, match="is for an ImaginedVectorEnv, found ImaginedEnv"):
        sb3(dream())


# ---------------------------------------------------------------- TorchRL


@pytest.mark.parametrize("output", ["numpy", "torch"])
@pytest.mark.parametrize("mode", ["SameStep", "Disabled"])
@pytest.mark.parametrize("space", ["discrete", "box"])
def test_their_checker_has_nothing_against_the_batch(space: str, mode: str, output: str) -> None:
    envs = torchrl(dreams(some_world(space=SPACES[space]), autoreset_mode=mode, output=output))
    from torchrl.envs.utils import check_env_specs

    check_env_specs(envs)
    assert envs.batch_size == (3,)
    names = {"observation", "entropy", "termination", "done", "terminated", "truncated", "reward"}
    for _ in range(3):
        rollout = envs.rollout(4, break_when_any_done=False)
        assert set(rollout["next"].keys()) == names
    assert rollout["next", "observation"].dtype == torch.uint8
    assert rollout["next", "reward"].shape == (3, 4, 1)


@pytest.mark.parametrize("output", ["numpy", "torch"])
@pytest.mark.parametrize("mode", ["SameStep", "Disabled"])
def test_a_rollout_is_what_the_batch_plays(mode: str, output: str) -> None:
    """Step by step the same as our own batch, with the last observation of each episode in its place."""
    world = some_world()
    envs = torchrl(dreams(world, 6, autoreset_mode=mode, output=output))
    envs.rollout(4)  # leaves something behind that a reset has to forget
    envs.set_seed(5)
    torch.manual_seed(0)
    rollout = envs.rollout(20, break_when_any_done=False)
    plain = dreams(world, 6, autoreset_mode="Disabled")
    plain.reset(seed=5)
    shown, _ = plain.reset()
    assert not rollout["next", "done"].all(dim=0).any(), "episodes that end all at once are begun twice by TorchRL"
    ends = 0
    for t in range(20):
        step = rollout[:, t]
        assert np.array_equal(step["observation"].numpy(), shown)
        shown, rewards, terminated, truncated, infos = plain.step(step["action"].numpy())
        after = step["next"]
        assert np.array_equal(after["observation"].numpy(), shown)
        np.testing.assert_allclose(after["reward"][:, 0].numpy(), rewards, rtol=1e-6)
        assert np.array_equal(after["terminated"][:, 0].numpy(), terminated)
        assert np.array_equal(after["truncated"][:, 0].numpy(), truncated)
        for name in ("entropy", "termination"):
            np.testing.assert_allclose(after[name].numpy(), infos[name], rtol=1e-5)
        if (over := terminated | truncated).any():
            ends += int(over.sum())
            shown, _ = plain.reset(options={"reset_mask": over})
    assert ends > 5
    assert rollout["next", "truncated"].any()
    assert rollout["next", "terminated"].any()


@pytest.mark.parametrize("mode", ["SameStep", "Disabled"])
def test_episodes_that_end_all_at_once_and_resets_that_get_an_old_tensordict(mode: str) -> None:
    envs = torchrl(dreams(endless(), horizon=2, autoreset_mode=mode))
    rollout = envs.rollout(7, break_when_any_done=False)
    assert rollout["next", "truncated"][0, :, 0].tolist() == [False, True] * 3 + [False]
    assert not rollout["done"].any()
    envs.set_seed(0)
    first = envs.reset()
    envs.set_seed(0)
    assert (envs.reset(first.clone())["observation"] == first["observation"]).all()


def test_actions_are_categories_and_boxes() -> None:
    discrete, box = (
        torchrl(dreams(some_world(space=SPACES[name]), autoreset_mode="Disabled")) for name in ("discrete", "box")
    )
    assert discrete.action_spec.shape == (3,)
    assert discrete.rand_action()["action"].dtype == torch.int64
    assert box.action_spec.shape == (3, 2)
    assert box.action_spec.space.high[0].tolist() == [1.0, 2.0]


def test_what_torchrl_cannot_take_is_refused() -> None:
    with pytest.raises(InputError, match=r"autoreset_mode='NextStep', .*make them with autoreset_mode='Disabled'"):
        torchrl(dreams())
    for space in ("dict", "tuple"):
        with pytest.raises(InputError, match=r"TorchRL takes no batches of nested actions, found (Dict|Tuple)"):
            torchrl(dreams(some_world(space=SPACES[space]), autoreset_mode="Disabled"))
    with pytest.raises(InputError, match="is for an ImaginedVectorEnv, found SyncVectorEnv"):
        torchrl(SyncVectorEnv([dream], autoreset_mode="Disabled"))


def test_a_single_env_needs_no_adapter() -> None:
    pytest.importorskip("torchrl")
    from torchrl.envs import GymWrapper
    from torchrl.envs.utils import check_env_specs

    check_env_specs(GymWrapper(dream(endless())))
