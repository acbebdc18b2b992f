"""Agents: they see, act, learn in a dream, go to disk, and are judged by whole real episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv
from tiny_models import FIVE, SIZE, STEERING, tiny_store, tiny_world
from torch import nn

from vqvideo.agents.agent import Agent, AgentPolicy
from vqvideo.agents.config import AgentStage, PPOConfig
from vqvideo.agents.learning import learn_directly, learn_in_dream, learn_in_perfect_dream
from vqvideo.agents.views import CodeObservations, CodeView, FrameFeatures, FrameView, plain_view
from vqvideo.errors import InputError
from vqvideo.evaluation.returns import Returns, play_episodes, play_side_by_side
from vqvideo.imagined_env import ImaginedVectorEnv, cut_thresholds
from vqvideo.imagined_env.starts import check_same_spaces
from vqvideo.models.prior.sampling import Sampling
from vqvideo.spaces import ActionSpace

QUICK = AgentStage(
    steps=64, num_envs=4, horizon=6, starts=8, direct_envs=2, episodes=2, ppo=PPOConfig(rollout=8, batch=16, epochs=1)
)


class Signal(gymnasium.Env):
    """Shows black or white and rewards the action that names it; an episode has `length` steps."""

    def __init__(self, size: int = SIZE, length: int = 5) -> None:
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = spaces.Discrete(5)
        self.size, self.length = size, length

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.step_number = 0
        return self._show(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(action == int(self.white))
        self.step_number += 1
        return self._show(), reward, self.step_number == self.length, False, {}

    def _show(self) -> Any:
        self.white = bool(self.np_random.integers(2))
        return np.full((self.size, self.size, 3), 255 * self.white, np.uint8)


def agent(space: ActionSpace = FIVE, seed: int = 0) -> Agent:
    torch.manual_seed(seed)
    return Agent.untrained(FrameView((SIZE, SIZE)), space)


def same_weights(one: nn.Module, two: nn.Module) -> bool:
    left, right = one.state_dict(), two.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# ---------------------------------------------------------------- seeing and acting


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (48, 64), (96, 96)])
def test_frames_of_any_size_become_one_vector_that_depends_on_every_corner(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    features = FrameFeatures(spaces.Box(0, 255, (3, *size), np.uint8))
    frames = torch.rand(2, 3, *size)
    seen = features(frames)
    assert seen.shape == (2, 128)
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        other = frames.clone()
        other[:, :, row, column] += 10
        assert not torch.allclose(features(other), seen)


@pytest.mark.parametrize("space", [FIVE, STEERING], ids=["discrete", "box"])
def test_an_agent_gives_one_valid_action_for_each_frame_of_any_size(space: ActionSpace) -> None:
    actions = agent(space)(np.random.default_rng(0).integers(0, 256, (7, 40, 30, 3), np.uint8))
    native = space.native()
    assert len(actions) == 7
    assert all(native.contains(np.asarray(action, native.dtype)) for action in actions)


def test_actions_of_a_nested_space_are_refused() -> None:
    nested = ActionSpace.from_gymnasium(spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Discrete(3)}))
    with pytest.raises(InputError, match="agents choose from Box, Discrete, MultiDiscrete or MultiBinary"):
        Agent.untrained(FrameView((SIZE, SIZE)), nested)


# ---------------------------------------------------------------- on disk


def test_an_agent_comes_back_from_disk_as_it_was_and_each_tensor_is_stored_once(tmp_path: Path) -> None:
    first = agent()
    first.save(tmp_path / "agent")
    again = Agent.load(tmp_path / "agent")
    assert same_weights(first.policy, again.policy)
    assert (again.view, again.space) == (first.view, first.space)
    stored = sum(parameter.numel() for parameter in first.policy.parameters())
    assert (tmp_path / "agent" / "model.safetensors").stat().st_size < 4 * stored + 4096


def test_a_recording_agent_repeats_itself_for_equal_seeds_and_explores_as_often_as_told(tmp_path: Path) -> None:
    agent().save(tmp_path / "agent")
    frames = np.random.default_rng(1).integers(0, 256, (20, SIZE, SIZE, 3), np.uint8)

    def played(exploration: float, seed: int = 0) -> list[int]:
        policy = AgentPolicy(tmp_path / "agent", exploration)
        policy.reset(Signal(), np.random.default_rng(seed))
        return [policy(frame) for frame in frames]

    assert played(0.5) == played(0.5)
    assert played(0.5) != played(0.5, seed=1)
    assert all(type(action) is int for action in played(0.0))
    assert played(0.0) != played(1.0)


# ---------------------------------------------------------------- learning


def test_learning_in_a_dream_changes_the_agent_and_repeats_bit_by_bit(tmp_path: Path) -> None:
    world, store = tiny_world(), tiny_store(tmp_path)
    one, two = (learn_in_dream(world, store, QUICK, Sampling()) for _ in range(2))
    assert same_weights(one.policy, two.policy)
    assert (one.view, one.space) == (FrameView((SIZE, SIZE)), FIVE)
    other = learn_in_dream(world, store, QUICK, Sampling(), first=one)
    assert not same_weights(one.policy, other.policy)
    with pytest.raises(InputError, match="the agent to begin with is of another shape"):
        learn_in_dream(world, store, QUICK, Sampling(), first=Agent.untrained(FrameView((32, 32)), FIVE))


def test_dreams_are_cut_only_if_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, store, asked = tiny_world(), tiny_store(tmp_path), []

    def dreamt(*args: Any, cut_above: dict[str, float] | None = None, **options: Any) -> ImaginedVectorEnv:
        asked.append(cut_above)
        return ImaginedVectorEnv(*args, cut_above=cut_above, **options)

    monkeypatch.setattr("vqvideo.agents.learning.ImaginedVectorEnv", dreamt)
    for cut in (None, 0.9):
        learn_in_dream(world, store, replace(QUICK, cut=cut), Sampling())
    assert asked == [None, cut_thresholds(world, store, 0.9)]
    with pytest.raises(InputError, match=r"agent.cut is 99, expected 0 \.\. 1"):
        replace(QUICK, cut=99)


def test_an_agent_learns_what_a_real_environment_rewards() -> None:
    stage = AgentStage(direct_envs=8, ppo=PPOConfig(learning_rate=3e-3, batch=128, epochs=4, discount=0.5))
    learnt = play_episodes([Signal()], learn_directly(Signal, FrameView((SIZE, SIZE)), 4096, stage), 20, seed=5)
    untaught = play_episodes([Signal()], agent(), 20, seed=5)
    assert learnt.mean > 4
    assert learnt.interval[0] > untaught.interval[1]


def test_where_every_reward_is_0_there_is_nothing_to_learn_and_a_constant_one_is_enough(tmp_path: Path) -> None:
    store = tiny_store(tmp_path)
    with pytest.raises(InputError, match=r"every reward is 0 in the episodes .*: nothing to learn\. Record"):
        learn_in_dream(tiny_world(rewards=(0.0, 0.0)), store, QUICK, Sampling())
    unknown = tiny_world(rewards=(0.0, 0.0))
    unknown.prior.spec = replace(unknown.prior.spec, missing=("rewards",))
    with pytest.raises(InputError, match=r"nobody wrote down the rewards .*--columns rewards=NAME"):
        learn_in_dream(unknown, store, QUICK, Sampling())
    learnt = learn_in_dream(tiny_world(rewards=(2.0, 2.0)), store, QUICK, Sampling())
    assert not same_weights(learnt.policy, agent().policy)


def test_the_perfect_dream_is_the_same_training_in_as_many_real_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def make() -> Signal:
        made.append(Signal())
        return made[-1]

    first, again = (learn_in_perfect_dream(make, FrameView((SIZE, SIZE)), QUICK) for _ in range(2))
    assert same_weights(first.policy, again.policy)
    assert len(made) == 2 * QUICK.num_envs


def test_a_greedy_agent_takes_the_likeliest_action_every_time() -> None:
    frames = np.repeat(np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8), 200, axis=0)
    one = agent()
    one.policy.action_net.bias.data[4] += 1
    assert len(set(one(frames).tolist())) > 1
    assert set(one(frames, greedy=True).tolist()) == {4}


# ---------------------------------------------------------------- codes


def test_an_agent_of_codes_learns_in_dreams_comes_back_from_disk_and_plays_the_real_game(tmp_path: Path) -> None:
    world, store = tiny_world(), tiny_store(tmp_path / "store")
    learnt = learn_in_dream(world, store, replace(QUICK, observe="codes"), Sampling())
    assert learnt.view == CodeView.of(world.vqvae)
    learnt.save(tmp_path / "agent")
    again = Agent.load(tmp_path / "agent")
    assert same_weights(learnt.policy, again.policy)
    env = CodeObservations(Signal(length=7), world.vqvae)
    played = play_episodes([env], again, 2, seed=0)
    assert played.lengths == (4, 4), "7 frames are 4 latent steps of 2, the last of them cut short"


@pytest.mark.parametrize("stride", [1, 2])
def test_what_an_agent_of_codes_sees_of_the_real_game_are_the_codes_of_its_frames(stride: int) -> None:
    vqvae, env = tiny_world(stride).vqvae, Signal(length=4 * stride)
    frame, _ = env.reset(seed=3)
    frames = [frame, *(env.step(1)[0] for _ in range(4 * stride))]
    expected = vqvae.encode(torch.from_numpy(np.stack(frames)).movedim(-1, 1)[None])[0].numpy()
    coded = CodeObservations(Signal(length=4 * stride), vqvae)
    first, _ = coded.reset(seed=3)
    steps = [coded.step(1) for _ in range(4)]
    np.testing.assert_array_equal(np.stack([first, *(step[0] for step in steps)]), expected)
    assert [step[2] for step in steps] == [False, False, False, True]
    assert sum(step[1] for step in steps) == sum(bool(shown.any()) for shown in frames[:-1])


def test_a_recording_agent_of_codes_decides_by_the_codes_of_what_it_was_shown(tmp_path: Path) -> None:
    world = tiny_world()
    player = Agent.untrained(plain_view(world.vqvae, "codes"), FIVE)
    player.save(tmp_path / "agent")
    world.vqvae.save_pretrained(tmp_path / "tokenizer")
    frames = np.random.default_rng(1).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)
    seen: list[Any] = []
    policy = AgentPolicy(tmp_path / "agent", 0.0, 2, tmp_path / "tokenizer")
    policy.reset(Signal(), np.random.default_rng(0))
    policy._agent = lambda codes: seen.append(codes[0]) or [0]  # type: ignore[assignment, func-returns-value]
    for frame in frames:
        policy(frame)
    expected = world.vqvae.encode(torch.from_numpy(frames).movedim(-1, 1)[None])[0].numpy()
    np.testing.assert_array_equal(np.stack(seen), expected)
    with pytest.raises(InputError, match="looks at codes: name the tokenizer"):
        AgentPolicy(tmp_path / "agent").reset(Signal(), np.random.default_rng(0))


# ---------------------------------------------------------------- judging


def test_episodes_are_counted_whole_and_meet_the_same_seeds() -> None:
    seen: list[int] = []

    class Seeded(Signal):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
            seen.append(int(seed or 0))
            return super().reset(seed=seed)

    always: Callable[[Any], list[int]] = lambda frames: [1 for _ in frames]  # noqa: E731
    played = play_episodes([Seeded(length=5)], always, 3, seed=10)
    assert seen == [10, 11, 12]
    assert played.lengths == (5, 5, 5)
    assert played == play_episodes([Signal(length=5)], always, 3, seed=10)
    assert play_episodes([Signal(length=50)], always, 2, seed=0, longest=7).lengths == (7, 7)


def test_episodes_side_by_side_are_those_one_by_one() -> None:
    class Uneven(Signal):
        """Its episodes have 3 to 9 steps."""

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
            self.length = 3 + int(seed or 0) * 5 % 7
            return super().reset(seed=seed)

    seen: Callable[[Any], list[int]] = lambda frames: [int(frame.any()) for frame in frames]  # noqa: E731
    alone, together = (play_episodes([Uneven() for _ in range(count)], seen, 11, seed=4) for count in (1, 4))
    assert alone == together
    assert set(alone.lengths) == {3 + seed * 5 % 7 for seed in range(4, 15)}
    assert alone.returns == alone.lengths
    assert play_episodes([Uneven() for _ in range(20)], seen, 11, seed=4) == alone


def test_episodes_in_a_vector_env_are_those_one_by_one() -> None:
    """Each env plays one, and those that are over sooner count no further."""

    class Uneven(Signal):
        """Its episodes have 3 to 9 steps."""

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
            self.length = 3 + (0 if seed is None else seed) * 5 % 7
            return super().reset(seed=seed)

    seen: Callable[[Any], list[int]] = lambda frames: [int(frame.any()) for frame in frames]  # noqa: E731
    envs = DummyVecEnv([Uneven] * 5)
    together = play_side_by_side(envs, lambda frames: np.array(seen(frames)), seed=4)
    assert together == play_episodes([Uneven()], seen, 5, seed=4)
    assert len(set(together.lengths)) > 1


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        low, high = Returns(tuple(rng.exponential(2.0, 60)), (1,) * 60).interval
        hits += low < 2.0 < high
    assert 48 <= hits < 60
    one = Returns((3.0, 3.0), (1, 1))
    assert (one.mean, one.interval) == (3.0, (3.0, 3.0))
    assert one.to_json()["episodes"] == 2


# ---------------------------------------------------------------- what does not fit


def test_a_real_environment_of_other_frames_or_actions_is_refused() -> None:
    world = tiny_world()
    check_same_spaces(world, Signal())
    with pytest.raises(
        InputError, match=r"the world dreams frames of \(16, 16, 3\) \(h, w, 3\): give one that shows them"
    ):
        check_same_spaces(world, Signal(size=32))
    with pytest.raises(InputError, match="takes actions in Discrete"):
        check_same_spaces(tiny_world(space=STEERING), Signal())


@pytest.mark.parametrize("settings", [{"steps": 0}, {"num_envs": 0}, {"horizon": 0}, {"episodes": 1}, {"starts": 0}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, int]) -> None:
    (name,) = settings
    with pytest.raises(InputError, match=f"agent.{name} is"):
        AgentStage(**settings)  # type: ignore[arg-type]
