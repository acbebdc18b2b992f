"""The dream as environments: seeds, rows that know nothing of each other, ends, what comes out, names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from einops import repeat
from gymnasium import spaces
from imagined import MODES, SPACES, dream, dreams, ending, endless, middle, play, row, same, some_starts, some_world
from tiny_models import STEERING, tiny_store, tiny_world
from torch import Tensor

from vqvideo.imagined_env import ImaginedEnv, ImaginedVectorEnv, no_reward
from vqvideo.models.prior.sampling import Sampling
from vqvideo.models.rows import RowStreams
from vqvideo.world import WorldModel, WorldStep

# ---------------------------------------------------------------- seeds


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_equal_seeds_give_equal_episodes_bit_by_bit(mode: str, stride: int) -> None:
    world = some_world(stride)
    one, two = (dreams(world, autoreset_mode=mode) for _ in range(2))
    first = play(one, seed=4, steps=9)
    assert same(first, play(two, seed=4, steps=9))
    assert same(first, play(one, seed=4, steps=9))
    assert not same(first, play(one, seed=5, steps=9))


def test_env_i_is_seeded_with_the_seed_plus_i() -> None:
    assert same(play(dreams(), seed=7), play(dreams(), seed=[7, 8, 9]))
    rows = row(play(dreams(), seed=[7, 8, 7], actions=1), 0)
    assert same(rows[0], row(play(dreams(), seed=[7, 8, 7]), 2)[0])


def test_rows_without_a_seed_of_their_own_go_on_with_the_random_numbers_at_hand() -> None:
    envs, other = dreams(), dreams()
    for one in (envs, other):
        play(one, steps=2, seed=0)
    mixed, unseeded = play(envs, seed=[5, None, 6]), play(other)
    fresh = play(dreams(), seed=[5, 1, 6])
    assert same(row(mixed, 1), row(unseeded, 1))
    assert [same(row(mixed, i), row(fresh, i)) for i in range(3)] == [True, False, True]
    # Without any seed, or with none of its own in the first reset, an env makes itself one.
    assert not same(play(dreams(num_envs=1)), play(dreams(num_envs=1)))
    assert not same(row(play(dreams(), seed=[5, None, 6]), 1), row(play(dreams(), seed=[5, None, 6]), 1))


def test_steps_and_resets_follow_on_after_a_seed() -> None:
    """The second episode is another one, and it is the same after the same seed."""
    one, two = dreams(endless()), dreams(endless())
    episodes = [[play(envs, steps=3, seed=seed) for seed in (2, None, None)] for envs in (one, two)]
    assert same(*episodes)
    assert not same(episodes[0][1], episodes[0][2])


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_what_a_row_dreams_does_not_depend_on_the_rows_beside_it(mode: str) -> None:
    world = some_world()
    one = play(dreams(world, autoreset_mode=mode), seed=[1, 2, 3], steps=20)
    two = play(dreams(world, autoreset_mode=mode), seed=[1, 8, 9], steps=20)
    assert same(row(one, 0), row(two, 0))
    assert not same(row(one, 1), row(two, 1))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_reset_of_one_row_changes_nothing_in_the_future_of_the_others(stride: int) -> None:
    world = endless(stride)
    one, two = (dreams(world, horizon=99, autoreset_mode="Disabled") for _ in range(2))
    actions = [one.action_space.sample() for _ in range(8)]
    told, _ = one.reset(seed=0), two.reset(seed=0)
    for k, action in enumerate(actions):
        if k in (2, 5):
            observations, infos = one.reset(options={"reset_mask": np.array([False, True, False])})
            assert infos["_start"].tolist() == [False, True, False]
            assert np.array_equal(observations[[0, 2]], told[0][[0, 2]])
        told, plain = one.step(action), two.step(action)
        assert [same(row([told], i), row([plain], i)) for i in range(3)] == [True, k < 2, True]


# ---------------------------------------------------------------- ends


@pytest.mark.parametrize("horizon", [1, 2, 5])
@pytest.mark.parametrize("mode", MODES)
def test_episodes_that_do_not_end_are_truncated_exactly_at_the_horizon(mode: str, horizon: int) -> None:
    told = play(dreams(endless(), horizon=horizon, autoreset_mode=mode), steps=12, seed=0)
    steps = [one for one in told if len(one) == 5]
    period = horizon + (mode == "NextStep")
    for k, (_, _, terminated, truncated, _) in enumerate(steps, start=1):
        assert not terminated.any()
        assert truncated.tolist() == [k % period == horizon % period] * 3


def test_after_an_early_end_the_horizon_begins_anew() -> None:
    taken, early, late = np.zeros(3, int), 0, 0
    for _, _, terminated, truncated, _ in play(dreams(autoreset_mode="SameStep"), steps=40, seed=1)[1:]:
        taken += 1
        assert np.array_equal(truncated, (taken == 5) & ~terminated)
        early, late = early + int((terminated & (taken < 5)).sum()), late + int(truncated.sum())
        taken[terminated | truncated] = 0
    assert early > 3
    assert late > 3


@pytest.mark.parametrize("bias", [-1.0, 0.0, 1.0])
def test_ends_are_drawn_with_the_probability_that_the_model_gives(bias: float) -> None:
    world = tiny_world()
    envs = dreams(ending(world, float(world.prior.termination.bias) + bias), num_envs=64, autoreset_mode="Disabled")
    told = [one for one in play(envs, steps=20, seed=0) if len(one) == 5]
    p = np.concatenate([one[4]["termination"] for one in told]).astype(np.float64)
    ended = np.concatenate([one[2] for one in told])
    assert p.std() > 0.05
    for some in (p <= np.median(p), p > np.median(p)):
        spread = np.sqrt((p * (1 - p))[some].sum())
        assert abs(ended[some].sum() - p[some].sum()) < 5 * spread


# ---------------------------------------------------------------- a step


@pytest.mark.parametrize("context", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("space", SPACES)
def test_a_step_is_a_step_of_the_world_under_an_action_held_for_all_its_frames(
    space: str, stride: int, context: int
) -> None:
    world = endless(stride, SPACES[space])
    starts = some_starts(world, context=context)
    env = dream(world, starts=starts, horizon=99, sampling=Sampling(top_p=0.8))
    env.action_space.seed(0)
    observation, info = env.reset(seed=11)
    streams = RowStreams(1, world.device)
    streams.seed(torch.tensor([0]), torch.tensor([11]))
    streams.begin_event(torch.tensor([True]))
    start = (streams.uniform((1,)) * len(starts)).long()
    assert info == {"start": int(start)}
    assert np.array_equal(observation, starts.frames[int(start)].numpy())
    state = starts.state.rows(start)
    for _ in range(5):
        action = env.action_space.sample()
        observation, reward, terminated, truncated, info = env.step(action)
        streams.begin_event(torch.tensor([True]))
        streams.uniform((1,))
        held = repeat(world.action_space.flatten(action), "a -> 1 s a", s=stride)
        step, state = world.step(state, held, sampling=Sampling(top_p=0.8), generator=streams)
        frames = step.frames[0].permute(0, 2, 3, 1).numpy()
        assert info["frames"].shape == (stride, 16, 16, 3)
        assert np.array_equal(info["frames"], frames)
        assert np.array_equal(observation, frames[-1])
        assert (reward, terminated, truncated) == (float(step.reward), False, False)
        assert (info["entropy"], info["termination"]) == (step.entropy.numpy(), step.termination.numpy())


def test_the_reward_of_ones_own_replaces_the_models() -> None:
    def brightness(step: WorldStep) -> Tensor:
        return step.frames.double().mean(dim=(1, 2, 3, 4))

    for mode in MODES:
        told = play(dreams(endless(), autoreset_mode=mode, reward=brightness), steps=4, seed=0)
        for _, rewards, _, _, infos in told[1:]:
            np.testing.assert_allclose(rewards, infos["frames"].mean(axis=(1, 2, 3, 4)), rtol=1e-5)
    assert not np.concatenate([one[1] for one in play(dreams(reward=no_reward), seed=0)[1:]]).any()


def test_render_shows_the_newest_observation_of_each_env() -> None:
    envs = dreams(render_mode="rgb_array")
    for one in play(envs, steps=1, seed=0):
        last = one[0]
    frames = envs.render()
    assert isinstance(frames, tuple)
    assert np.array_equal(np.stack(frames), last)
    assert dreams().render() is None
    single = dream(render_mode="rgb_array")
    assert np.array_equal(single.reset(seed=0)[0], single.render())


def test_what_a_caller_writes_into_an_observation_does_not_come_back() -> None:
    """Gymnasium's wrappers write into observations in place."""
    envs = dreams(endless(), autoreset_mode="Disabled", render_mode="rgb_array")
    told = play(envs, steps=2, seed=0)[-1][0]
    kept = told.copy()
    told[:] = 0
    assert np.array_equal(np.stack(envs.render() or ()), kept)
    observations, _ = envs.reset(options={"reset_mask": np.array([True, False, False])})
    assert np.array_equal(observations[1:], kept[1:])


def test_what_a_caller_writes_into_the_flags_does_not_end_episodes() -> None:
    envs = dreams(endless(), num_envs=1, horizon=1)
    for _, _, terminated, truncated, infos in play(envs, steps=6, seed=0)[1:]:
        for mask in (terminated, truncated, *(infos[name] for name in infos if name.startswith("_"))):
            mask[:] = True
    assert [one[3].item() for one in play(envs, steps=4, seed=0)[1:]] == [True, False, True, False]
    _, _, terminated, _, _ = envs.step(envs.action_space.sample())
    _, _, terminated, _, _ = envs.step(envs.action_space.sample())
    terminated[:] = True
    _, _, _, truncated, _ = envs.step(envs.action_space.sample())
    assert truncated.item()


# ---------------------------------------------------------------- tensors


def as_numpy(told: Any) -> Any:
    if isinstance(told, dict):
        return {name: as_numpy(value) for name, value in told.items()}
    return tuple(map(as_numpy, told)) if isinstance(told, tuple) else told.numpy()


@pytest.mark.parametrize("mode", MODES)
def test_torch_output_is_the_numpy_output_in_tensors(mode: str) -> None:
    world = some_world()
    arrays = play(dreams(world, autoreset_mode=mode), seed=0)
    tensors = play(dreams(world, autoreset_mode=mode, output="torch"), seed=0)
    for one, two in zip(arrays, map(as_numpy, tensors), strict=True):
        if len(two) == 5:
            two = (two[0], two[1].astype(np.float64), *two[2:])
        if "final_obs" in two[-1]:
            over, last = two[-1]["_final_obs"], one[-1].pop("final_obs")
            assert [frame is not None for frame in last] == over.tolist()
            assert np.array_equal(np.stack(last[over]), two[-1].pop("final_obs")[over])
        assert same(one, two)


def test_actions_may_come_from_a_network_in_bfloat16() -> None:
    envs, other = dreams(some_world(space=STEERING)), dreams(some_world(space=STEERING))
    half = torch.tensor([[0.5, 1.25], [-0.25, 0.0], [0.0, 2.0]], requires_grad=True)
    for one in (envs, other):
        one.reset(seed=0)
    assert same(envs.step(half.bfloat16()), other.step(half.detach().double().numpy()))


# ---------------------------------------------------------------- spaces and names


@pytest.mark.parametrize("space", SPACES)
def test_spaces_are_those_of_the_recorded_env(space: str) -> None:
    envs = dreams(some_world(space=SPACES[space]))
    assert envs.single_observation_space == spaces.Box(0, 255, (16, 16, 3), np.uint8)
    assert envs.single_action_space == SPACES[space].native()
    assert envs.single_action_space.contains(middle(SPACES[space]))


@pytest.mark.parametrize("stride", [1, 2])
def test_metadata_tell_the_mode_and_how_fast_steps_follow_each_other(stride: int) -> None:
    envs = dreams(some_world(stride), autoreset_mode="SameStep")
    assert envs.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.SAME_STEP
    assert envs.metadata["render_fps"] == 10 / stride
    assert dream(some_world(stride)).metadata == {"render_modes": ["human", "rgb_array"], "render_fps": 10 / stride}


def test_a_world_hands_itself_out_as_an_env(tmp_path: Path) -> None:
    envs = some_world().as_env(2, starts=tiny_store(tmp_path), horizon=3)
    assert isinstance(envs, ImaginedVectorEnv)
    assert (envs.num_envs, envs.dreams.horizon) == (2, 3)


def test_an_env_by_name_from_folders(tmp_path: Path) -> None:
    world = some_world()
    world.save_pretrained(tmp_path / "world")
    tiny_store(tmp_path / "data")
    named = {"world": str(tmp_path / "world"), "starts": str(tmp_path / "data"), "horizon": 4}
    env = gymnasium.make("vqvideo/Imagined-v0", device="cpu", **named)
    assert isinstance(env.unwrapped, ImaginedEnv)
    envs = gymnasium.make_vec("vqvideo/Imagined-v0", num_envs=3, device="cpu", **named)
    assert isinstance(envs.unwrapped, ImaginedVectorEnv)
    starts = envs.unwrapped.dreams.starts
    assert same(play(dreams(world, starts=starts, horizon=4), seed=0), play(envs.unwrapped, seed=0))


def test_the_shipped_world_by_name() -> None:
    name = {"world": "carracing", "max_starts": 2, "device": "cpu"}
    env = gymnasium.make("vqvideo/Imagined-v0", render_mode="rgb_array", **name)
    observation, _ = env.reset(seed=0)
    after, reward, *_ = env.step(np.array([0.0, 1.0, 0.0], np.float32))
    assert observation.shape == after.shape == (64, 64, 3)
    assert not np.array_equal(observation, after)
    assert isinstance(reward, float)
    envs = gymnasium.make_vec("vqvideo/Imagined-v0", num_envs=2, autoreset_mode="SameStep", **name)
    envs.reset(seed=0)
    _, rewards, *_ = envs.step(envs.action_space.sample())
    assert rewards.shape == (2,)


def test_a_world_that_is_made_for_training_dreams_in_eval_mode() -> None:
    world: WorldModel = some_world().train()
    dreams(world)
    assert not world.training
