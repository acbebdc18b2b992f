"""Presets, wrappers and the tiny world."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stub_envs import StubEnv, every_action_space

from vqvideo import envs
from vqvideo.envs import tiny_world
from vqvideo.envs.car_racing import DrawOnDemand
from vqvideo.envs.wrappers import ActionRepeat, SkipFirst, idle_action
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace


@pytest.fixture(params=sorted(envs.PRESETS))
def preset(request: pytest.FixtureRequest) -> envs.Preset:
    preset = envs.PRESETS[request.param]
    if preset.extra == "doom":
        pytest.importorskip("vizdoom", reason="pip install 'vqvideo[doom]'")
    return preset


def test_every_preset_observes_uint8_frames_and_steps(preset: envs.Preset) -> None:
    env = envs.make(preset)
    frame, _ = env.reset(seed=3)
    assert frame in env.observation_space
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
    assert frame.shape[2] == 3
    frame, *_ = env.step(env.action_space.sample())
    assert frame in env.observation_space
    env.close()


def test_every_named_action_of_a_preset_is_in_its_space(preset: envs.Preset) -> None:
    env = envs.make(preset)
    space = ActionSpace.from_gymnasium(env.action_space)
    for vector in preset.actions.values():
        assert space.unflatten(vector) in env.action_space


def test_doom_leaves_nothing_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vizdoom", reason="pip install 'vqvideo[doom]'")
    monkeypatch.chdir(tmp_path)
    env = envs.make(envs.PRESETS["Doom"])
    for seed in (0, 1):
        env.reset(seed=seed)
        env.step(env.action_space.sample())
    env.close()
    assert list(tmp_path.iterdir()) == []
    assert Path.cwd() == tmp_path


def test_a_misspelt_environment_is_answered_with_a_suggestion() -> None:
    with pytest.raises(InputError, match="did you mean CarRacing"):
        envs.resolve("CarRacng")
    with pytest.raises(InputError, match="CartPole-v1"):
        envs.resolve("CartPol-v1")


def test_a_name_like_no_other_is_answered_with_the_presets() -> None:
    with pytest.raises(InputError, match="presets are CarRacing"):
        envs.resolve("qqqqqqqqqqqqqqqqqqqqqqqqqqq")


def test_a_missing_package_is_answered_with_how_to_install_it() -> None:
    with pytest.raises(InputError, match=r"not installed.*pip"):
        envs.resolve("no_such_package_here:Env-v0")
    with pytest.raises(InputError, match="pip"):
        envs.make(envs.Preset(env_id="no_such_package_here:Env-v0"))
    with pytest.raises(InputError, match=r"pip install 'vqvideo\[doom\]'"):
        envs.make(envs.Preset(env_id="no_such_package_here:Env-v0", extra="doom"))


def test_the_package_that_registers_an_environment_can_stand_before_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_package.py").write_text(
        "import gymnasium\ngymnasium.register('a_package/Env-v0', entry_point='vqvideo.envs.tiny_world:TinyWorld')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    preset = envs.resolve("a_package:a_package/Env-v0")
    frame, _ = envs.make(preset).reset(seed=0)
    assert frame.shape == (32, 32, 3)


def test_an_unknown_argument_of_an_environment_is_named() -> None:
    with pytest.raises(InputError, match="no_such"):
        envs.make(envs.Preset(env_id="CartPole-v1", kwargs={"no_such": 1}))


def test_any_gymnasium_id_gets_a_plain_preset() -> None:
    preset = envs.resolve("CartPole-v1")
    assert (preset.env_id, preset.action_repeat, preset.policy) == ("CartPole-v1", 1, "sticky-random")


def test_the_id_of_a_preset_is_the_preset() -> None:
    assert envs.resolve("CarRacing-v3") is envs.PRESETS["CarRacing"]


def test_a_preset_is_found_again_by_its_name_with_other_settings_too() -> None:
    for name, preset in envs.PRESETS.items():
        assert envs.name_of(dataclasses.replace(preset, action_repeat=7, policy="random")) == name
    assert envs.name_of(envs.resolve("CartPole-v1")) == "CartPole-v1"


@pytest.mark.parametrize("wrong", [{"action_repeat": 0}, {"skip_first": -1}])
def test_impossible_preset_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="at least"):
        dataclasses.replace(envs.resolve("CartPole-v1"), **wrong)


def test_an_environment_without_pixels_is_rendered() -> None:
    env = envs.make(envs.resolve("CartPole-v1"))
    frame, _ = env.reset(seed=0)
    assert frame.shape == (400, 600, 3)
    assert len(np.unique(frame)) > 2


def test_without_a_display_the_dummy_video_driver_is_chosen_unless_one_is_set() -> None:
    script = "import os, vqvideo.envs; print(os.environ.get('SDL_VIDEODRIVER'))"

    def driver(environment: dict[str, str]) -> str:
        run = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=120
        )
        return run.stdout.strip()

    assert driver({}) == "dummy"
    assert driver({"SDL_VIDEODRIVER": "offscreen"}) == "offscreen"
    assert driver({"DISPLAY": ":0"}) == "None"


# --- CarRacing ---


def test_car_racing_drawn_on_demand_looks_the_same_and_rewards_the_same() -> None:
    preset = envs.PRESETS["CarRacing"]
    env, plain = envs.make(preset), gymnasium.make("CarRacing-v3", continuous=True)
    env.reset(seed=5)
    plain.reset(seed=5)
    for _ in range(preset.skip_first):
        plain.step(np.zeros(3, np.float32))
    action = np.array([0.3, 0.8, 0.0], np.float32)
    for _ in range(5):
        frame, reward, *_ = env.step(action)
        rewards = []
        for _ in range(preset.action_repeat):
            expected, part, *_ = plain.step(action)
            rewards.append(float(part))
        np.testing.assert_array_equal(frame, expected)
        assert reward == pytest.approx(sum(rewards))


def test_car_racing_still_renders_large_pictures() -> None:
    env = DrawOnDemand(gymnasium.make("CarRacing-v3", continuous=True, render_mode="rgb_array"))
    env.reset(seed=0)
    picture: Any = env.render()
    assert picture.shape == (400, 600, 3)
    assert picture.any()


def test_car_racing_anywhere_starts_at_rest_on_the_road_at_different_places() -> None:
    env = envs.make(envs.PRESETS["CarRacingAnywhere"])
    inner: Any = env.unwrapped
    tiles = set()
    for seed in range(4):
        first, _ = env.reset(seed=seed)
        again, _ = env.reset(seed=seed)
        np.testing.assert_array_equal(first, again)
        gaps = np.linalg.norm(np.array(inner.track)[:, 2:] - np.array(inner.car.hull.position), axis=1)
        tiles.add(int(gaps.argmin()))
        assert gaps.min() < 1.0
        env.step(np.zeros(3, np.float32))
        assert all(len(wheel.tiles) for wheel in inner.car.wheels)
    assert len(tiles) > 1


# --- wrappers ---


def test_action_repeat_adds_up_rewards_and_stops_at_the_end() -> None:
    env = ActionRepeat(StubEnv(length=5), 3)
    env.reset(seed=0)
    assert env.step(0)[1:4] == (1.5, False, False)
    assert env.step(0)[1:4] == (1.0, True, False)


def test_skipped_first_steps_are_not_seen() -> None:
    env, plain = SkipFirst(StubEnv(), 4), StubEnv()
    frame, _ = env.reset(seed=0)
    plain.reset(seed=0)
    for _ in range(4):
        expected, *_ = plain.step(0)
    np.testing.assert_array_equal(frame, expected)


def test_skipping_more_steps_than_an_episode_has_is_an_error() -> None:
    with pytest.raises(InputError, match=r"ended at step 5 of the 8.*--skip-first"):
        SkipFirst(StubEnv(length=5), 8).reset(seed=0)


@every_action_space
def test_the_idle_action_is_valid_in_every_action_space(action_kind: str) -> None:
    env = StubEnv(action_kind)
    assert env.action_space.contains(idle_action(env.action_space))


# --- the tiny world ---


def test_the_tiny_world_passes_gymnasiums_checker_without_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("vqvideo/TinyWorld-v0", disable_env_checker=True).unwrapped)


def test_every_frame_of_the_tiny_world_is_predicted_by_its_pure_functions() -> None:
    env = envs.make(envs.PRESETS["TinyWorld"])
    rng = np.random.default_rng(0)
    outcomes = set()
    for seed in range(20):
        frame, info = env.reset(seed=seed)
        state = info["state"]
        for action in rng.integers(5, size=60):
            np.testing.assert_array_equal(frame, tiny_world.draw(state))
            frame, reward, terminated, _, _ = env.step(action)
            state, *expected = tiny_world.next_state(state, action)
            assert [reward, terminated] == expected
            outcomes.add(reward)
            if terminated:
                break
        np.testing.assert_array_equal(frame, tiny_world.draw(state))
    assert outcomes == {0.0, 1.0, -1.0}


def test_reaching_the_goal_moves_it_to_the_opposite_point() -> None:
    state = tiny_world.State(block=(2, 2), goal=(2, 3), hazard=(7, 7), texture=0)
    moved, reward, terminated = tiny_world.next_state(state, 4)
    assert (moved.block, moved.goal, reward, terminated) == ((2, 3), (5, 4), 1.0, False)


def test_walls_hold_the_block() -> None:
    state = tiny_world.State(block=(0, 0), goal=(2, 3), hazard=(7, 7), texture=0)
    assert tiny_world.next_state(state, 1).state == state
    assert tiny_world.next_state(state, 3).state == state


def test_the_goal_never_lands_on_the_hazard() -> None:
    for seed in range(300):
        state = tiny_world.first_state(np.random.default_rng(seed))
        assert state.hazard not in (state.block, state.goal, tiny_world.opposite(state.goal))
        assert state.block != state.goal


def test_the_tiny_world_is_cut_at_its_step_limit() -> None:
    env = envs.make(envs.PRESETS["TinyWorld"])
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(200)]
    assert ends[-1] == (False, True)
    assert not any(any(end) for end in ends[:-1])


@pytest.mark.parametrize("size", [4, 30])
def test_an_impossible_size_of_the_tiny_world_is_refused(size: int) -> None:
    with pytest.raises(InputError, match="multiple of 8"):
        tiny_world.TinyWorld(size=size)
