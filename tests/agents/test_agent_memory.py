"""Agents that remember: what they see, when they forget, and what it is good for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_agents import QUICK, Signal, same_weights
from tiny_models import FIVE, SIZE, STEERING, tiny_store, tiny_world

from vqvideo.adapters.sb3 import SB3VecEnv
from vqvideo.agents.agent import Agent, AgentPolicy
from vqvideo.agents.config import AgentStage, PPOConfig
from vqvideo.agents.learning import learn_in_dream, learn_in_perfect_dream, start_choice
from vqvideo.agents.memory import Memory, MemoryView, Past, Remembered, RememberedVec, pasts, view_from_json, view_of
from vqvideo.agents.views import CodeObservations, FrameView
from vqvideo.data.moments import Moment
from vqvideo.envs.moments import FromMoments
from vqvideo.errors import InputError
from vqvideo.evaluation.returns import play_episodes
from vqvideo.imagined_env import ImaginedVectorEnv
from vqvideo.imagined_env.starts import Starts, start_contexts, start_moments
from vqvideo.models.prior.sampling import Sampling

FRAMES = MemoryView(FrameView((SIZE, SIZE)), 2, FIVE)
BOTH = pytest.mark.parametrize("observe", ["frames", "codes"])


def shade(number: int) -> Any:
    """A frame of one colour."""
    return np.full((SIZE, SIZE, 3), number, np.uint8)


def shades(seen: Any) -> list[int]:
    """The colours of remembered frames (..., 3, h, w)."""
    return np.asarray(seen)[..., 0, 0, 0].tolist()


def acted(actions: Any) -> list[int]:
    """The numbers of remembered one-hot actions; -1 for none."""
    return [int(row.argmax()) if row.any() else -1 for row in actions]


# ---------------------------------------------------------------- windows


def test_a_memory_holds_the_newest_steps_and_forgets_at_the_beginning_of_an_episode() -> None:
    memory = Memory(FRAMES, 2)
    memory.begin(0, shade(1))
    memory.begin(1, shade(101))
    assert (shades(memory[0]["seen"]), acted(memory[0]["actions"])) == ([1, 1, 1], [-1, -1])
    for number in (2, 3, 4):
        memory.add([number, 0], np.stack([shade(number), shade(100 + number)]))
    assert (shades(memory[0]["seen"]), acted(memory[0]["actions"])) == ([2, 3, 4], [3, 4])
    memory.begin(0, shade(50))
    assert (shades(memory[0]["seen"]), acted(memory[0]["actions"])) == ([50, 50, 50], [-1, -1])
    assert (shades(memory[1]["seen"]), acted(memory[1]["actions"])) == ([102, 103, 104], [0, 0])


@pytest.mark.parametrize(("known", "seen", "actions"), [(0, [9] * 3, [-1, -1]), (1, [8, 8, 9], [-1, 3])])
def test_what_came_before_an_episode_is_remembered_as_far_as_it_is_known(
    known: int, seen: list[int], actions: list[int]
) -> None:
    frames = np.stack([np.moveaxis(shade(number), -1, 0) for number in (6, 7, 8)])
    past = Past(frames[3 - known :], np.stack([FRAMES.flat(action) for action in (1, 2, 3)])[3 - known :])
    memory = Memory(FRAMES, 1)
    memory.begin(0, shade(9), past)
    assert (shades(memory[0]["seen"]), acted(memory[0]["actions"])) == (seen, actions)
    memory.begin(0, shade(9), Past(frames, np.stack([FRAMES.flat(action) for action in (1, 2, 3)])))
    assert (shades(memory[0]["seen"]), acted(memory[0]["actions"])) == ([7, 8, 9], [2, 3])


@BOTH
def test_dreams_side_by_side_begin_with_their_contexts_and_remember_nothing_of_other_episodes(
    tmp_path: Path, observe: str
) -> None:
    world, store = tiny_world(), tiny_store(tmp_path)
    stage = replace(QUICK, observe=observe, context=3, memory=2, horizon=3, starts=5)
    contexts = start_contexts(world, store, stage.context, start_choice(stage, world.stride))
    view = view_of(world, stage)
    assert isinstance(view, MemoryView)
    before, starts = pasts(world.vqvae, contexts, view), Starts.read(world, *contexts)
    how: dict[str, Any] = {"horizon": stage.horizon, "observe": observe, "autoreset_mode": "SameStep"}
    plain, other = (SB3VecEnv(ImaginedVectorEnv(world, starts, 4, **how)) for _ in range(2))
    remembered = RememberedVec(other, view, before)
    plain.seed(3)
    remembered.seed(3)
    newest = view.now.prepare(plain.reset())
    episodes = [[*before[int(plain.reset_infos[row]["start"])].seen, newest[row]] for row in range(4)]
    window = remembered.reset()
    np.testing.assert_array_equal(window["seen"], np.stack([episode[-3:] for episode in episodes]))
    rng = np.random.default_rng(0)
    for _ in range(8):
        actions = rng.integers(5, size=4)
        newest, _, dones, infos = plain.step(actions)
        window, _, _, other_infos = remembered.step(actions)
        for row in range(4):
            if dones[row]:
                last = view.now.prepare(infos[row]["terminal_observation"][None])[0]
                np.testing.assert_array_equal(
                    other_infos[row]["terminal_observation"]["seen"], np.stack([*episodes[row][-2:], last])
                )
                episodes[row] = [*before[int(plain.reset_infos[row]["start"])].seen]
            else:
                assert acted(window["actions"][row])[-1] == actions[row]
            episodes[row].append(view.now.prepare(newest[row][None])[0])
        np.testing.assert_array_equal(window["seen"], np.stack([episode[-3:] for episode in episodes]))


@BOTH
def test_dreams_and_perfect_dreams_remember_the_same_steps_before_they_begin(tmp_path: Path, observe: str) -> None:
    world, store = tiny_world(), tiny_store(tmp_path)
    stage = replace(QUICK, observe=observe, context=3, memory=2, starts=4)
    where = world, store, stage.context, start_choice(stage, world.stride)
    contexts, view = start_contexts(*where), view_of(world, stage)
    assert isinstance(view, MemoryView)
    dreamt, real = (pasts(world.vqvae, contexts, view, real=real) for real in (False, True))
    assert list(dreamt) == [moment.source for moment in start_moments(*where)]
    codes = world.vqvae.encode(contexts.frames)
    shown = codes if observe == "codes" else (world.vqvae.decode(codes)[:, ::2] * 255).round().to(torch.uint8)
    for row, number in enumerate(dreamt):
        np.testing.assert_array_equal(dreamt[number].seen, shown[row, :2].numpy())
        expected = codes[row, :2] if observe == "codes" else contexts.frames[row, (0, 2)]
        np.testing.assert_array_equal(real[number].seen, expected.numpy())
        # Two actions led through each latent step; the newer one counts.
        assert acted(dreamt[number].actions) == contexts.actions[row, 1::2, 0].int().tolist()


def test_a_real_episode_from_a_moment_on_begins_with_what_came_before_it() -> None:
    env = Signal(length=9)
    env.reset(seed=4)
    frame = env.step(1)[0]
    frames = np.stack([np.moveaxis(shade(number), -1, 0) for number in (6, 7)])
    past = Past(frames, np.stack([FRAMES.flat(action) for action in (1, 2)]))
    moments = [Moment(4, np.ones((1, 1)), frame, 17)]
    remembered = Remembered(FromMoments(Signal(length=9), moments), FRAMES, {17: past, 18: past})
    window, info = remembered.reset(seed=0)
    assert info["start"] == 17
    assert (shades(window["seen"])[:2], acted(window["actions"])) == ([6, 7], [1, 2])
    window = remembered.step(3)[0]
    assert (shades(window["seen"])[0], acted(window["actions"])) == (7, [2, 3])


# ---------------------------------------------------------------- agents


@BOTH
def test_an_agent_with_a_memory_learns_in_dreams_comes_back_from_disk_and_plays(tmp_path: Path, observe: str) -> None:
    world, store = tiny_world(), tiny_store(tmp_path / "store")
    stage = replace(QUICK, observe=observe, context=2, memory=2)
    learnt, again = (learn_in_dream(world, store, stage, Sampling()) for _ in range(2))
    assert same_weights(learnt.policy, again.policy)
    learnt.save(tmp_path / "agent")
    loaded = Agent.load(tmp_path / "agent")
    assert same_weights(learnt.policy, loaded.policy)
    assert loaded.view == learnt.view
    envs = [
        Remembered(CodeObservations(Signal(), world.vqvae) if observe == "codes" else Signal(), learnt.view)  # type: ignore[arg-type]
        for _ in range(2)
    ]
    played = [play_episodes(envs, partial(agent, greedy=True), 3, seed=0) for agent in (learnt, loaded)]
    assert played[0] == played[1]
    with pytest.raises(InputError, match="the agent to begin with is of another shape"):
        learn_in_dream(world, store, replace(stage, memory=1), Sampling(), first=learnt)


def test_an_agent_of_actions_that_are_numbers_remembers_them_as_they_are() -> None:
    view = MemoryView(FrameView((SIZE, SIZE)), 1, STEERING)
    memory = Memory(view, 1)
    memory.begin(0, shade(0))
    memory.add([np.array([-0.5, 1.5])], shade(1)[None])
    np.testing.assert_array_equal(memory[0]["actions"], [[-0.5, 1.5]])
    assert STEERING.native().contains(Agent.untrained(view, STEERING)([memory[0]])[0].astype(np.float64))


def test_agents_that_were_saved_before_there_was_a_memory_have_none() -> None:
    assert view_from_json({"frame_size": [16, 16]}, FIVE) == FrameView((16, 16))
    assert view_from_json(FRAMES.to_json(), FIVE) == FRAMES


class Echo(Signal):
    """Rewards the action that names the frame before the one that is shown."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.white = False
        return super().reset(seed=seed)

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(action == int(self.before))
        return *super().step(action)[:1], reward, self.step_number == self.length, False, {}

    def _show(self) -> Any:
        self.before = self.white
        return super()._show()


def test_an_agent_with_a_memory_learns_what_one_frame_does_not_tell() -> None:
    view = MemoryView(FrameView((SIZE, SIZE)), 1, FIVE)
    ppo = PPOConfig(learning_rate=5e-3, rollout=16, batch=128, epochs=4, discount=0.0)
    stage = AgentStage(steps=1024, num_envs=8, ppo=ppo)
    learnt = learn_in_perfect_dream(lambda: Remembered(Echo(length=9), view), view, stage)
    env = Remembered(Echo(length=9), view)
    played = play_episodes([env], lambda seen: learnt(seen, greedy=True), 20, seed=5)
    # Whoever sees the newest frame only is right in half of the steps.
    assert played.mean > 7


@pytest.mark.parametrize("exploration", [0.0, 0.5])
def test_a_recording_agent_remembers_what_it_was_shown_and_what_was_really_done(
    tmp_path: Path, exploration: float
) -> None:
    Agent.untrained(FRAMES, FIVE).save(tmp_path / "agent")
    policy = AgentPolicy(tmp_path / "agent", exploration, hold=2)
    for episode in range(2):
        policy.reset(Signal(), np.random.default_rng(episode))
        seen: list[Any] = []
        observation = policy._observation
        policy._observation = lambda look=observation, seen=seen: seen.append(look()) or seen[-1]  # type: ignore[method-assign]
        done = [policy(shade(100 * episode + number)) for number in range(10)]
        policy._observation = observation  # type: ignore[method-assign]
        assert done[::2] == done[1::2], "each is held for two steps"
        assert len(set(done)) > 1
        shown = [100 * episode + number for number in (0, 2, 4, 6, 8)]
        assert [shades(window["seen"])[-1] for window in seen] == shown
        assert shades(seen[0]["seen"]) == shown[:1] * 3, "nothing of the episode before"
        assert acted(seen[0]["actions"]) == [-1, -1]
        assert (shades(seen[-1]["seen"]), acted(seen[-1]["actions"])) == (shown[2:], [done[4], done[6]])
