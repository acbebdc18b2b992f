"""Real environments that begin at recorded moments, and who plays TinyWorld best."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stores import make_episode, make_meta

from vqvideo import envs
from vqvideo.data.clips import Clips
from vqvideo.data.config import RecordConfig
from vqvideo.data.moments import Choice, moments
from vqvideo.data.store import Store, StoreWriter
from vqvideo.envs.moments import FromMoments
from vqvideo.envs.policies import make_policy
from vqvideo.envs.recording import record
from vqvideo.envs.tiny_world import State, next_state, shortest_path_action
from vqvideo.errors import InputError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    out = tmp_path_factory.mktemp("moments") / "store"
    options = RecordConfig(env="TinyWorld", episodes=3, steps=12, frame_size=16, policy="random", out=out, workers=0)
    return Store.open(record(options))


def test_an_episode_begins_at_a_recorded_moment_and_goes_on_as_the_recording_did(store: Store) -> None:
    clips = Clips(store, "train", 4)
    picked = moments(clips, range(len(clips)), 2)
    space = store.meta.action_space
    for index, moment in enumerate(picked):
        env = FromMoments(envs.as_recorded(store.meta), [moment])
        frame, _ = env.reset(seed=0)
        recorded = clips[index]
        np.testing.assert_array_equal(frame, recorded["frames"][2].movedim(0, -1).numpy())
        after, reward, *_ = env.step(space.unflatten(recorded["actions"][2].double().numpy()))
        np.testing.assert_array_equal(after, recorded["frames"][3].movedim(0, -1).numpy())
        assert reward == recorded["rewards"][2]


def test_equal_seeds_begin_at_equal_moments_and_others_at_others(store: Store) -> None:
    clips = Clips(store, "train", 4)
    env = FromMoments(envs.as_recorded(store.meta), moments(clips, range(len(clips)), 2))
    once, again, other = ([env.reset(seed=seed)[0], *(env.reset()[0] for _ in range(5))] for seed in (1, 1, 2))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_an_environment_that_does_not_repeat_itself_is_refused(store: Store) -> None:
    clips = Clips(store, "train", 4)
    (moment,) = moments(clips, [0], 2)
    env = FromMoments(envs.as_recorded(store.meta), [moment._replace(seed=moment.seed + 1)])
    with pytest.raises(InputError, match=r"does not repeat its recording.* same 2 actions .*--no-control"):
        env.reset(seed=0)


def test_the_moments_that_are_chosen_are_as_new_and_as_close_to_events_as_asked_for(tmp_path: Path) -> None:
    rewards = np.zeros(100, np.float32)
    rewards[40] = 1
    with StoreWriter.open(tmp_path, make_meta()) as writer:
        for index in range(2):
            writer.add(index, make_episode(100, index, rewards=rewards, terminated=np.zeros(100, bool)), "train")
    store = Store.open(tmp_path)
    clips = Clips(store, "train", 4)
    picks = Choice(40, newest=0.25, eventful=0.5, reach=5).of(clips, 2)
    late, near, rest = picks[:10], picks[10:20], picks[20:]
    assert late.min() >= len(clips) * 3 // 4
    # 5 moments of each episode come within 5 steps before its one reward: as many starts as there are, and no more.
    assert {clips.locate(int(index))[1] + 2 for index in near} == set(range(36, 41))
    assert np.array_equal(rest, clips.spread(20))
    assert np.array_equal(Choice(30).of(clips, 2), clips.spread(30))


def test_the_shortest_path_leads_around_the_hazard_from_goal_to_goal() -> None:
    state = State(block=(0, 0), goal=(0, 3), hazard=(0, 1), texture=0)
    ways = []
    for _ in range(2):
        steps, reward = 0, 0.0
        while not reward:
            state, reward, terminated = next_state(state, shortest_path_action(state))
            assert not terminated
            steps += 1
        ways.append(steps)
    # Around the hazard 5 instead of 3, then to the opposite place: 7 down and 1 to the right.
    assert ways == [5, 8]


def test_the_best_player_of_a_preset_is_a_policy_that_plays_it() -> None:
    preset = envs.resolve("TinyWorld")
    assert preset.best
    env, policy = envs.make(preset), make_policy(preset.best)
    frame, _ = env.reset(seed=0)
    policy.reset(env, np.random.default_rng(0))
    total = 0.0
    for _ in range(60):
        frame, reward, *_ = env.step(policy(frame))
        total += float(reward)
    assert total >= 60 // 14
