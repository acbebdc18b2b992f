"""Policies: valid in every space, driven by one generator, and a driver that drives."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from stub_envs import StubEnv, every_action_space

from vqvideo import envs
from vqvideo.envs.car_racing import Drive, Road
from vqvideo.envs.policies import POLICIES, Constant, Policy, make_policy
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

FRAME = np.zeros((20, 20, 3), np.uint8)
GENERAL = ("random", "sticky-random", "smooth")


def actions_of(policy: Policy, env: Any, seed: int, steps: int) -> np.ndarray:
    """Flat actions, (steps, a)."""
    space = ActionSpace.from_gymnasium(env.action_space)
    policy.reset(env, np.random.default_rng(seed))
    return np.stack([space.flatten(policy(FRAME)) for _ in range(steps)])


@pytest.mark.parametrize("name", GENERAL)
@every_action_space
def test_general_policies_give_valid_varied_actions_in_every_space(name: str, action_kind: str) -> None:
    actions = actions_of(make_policy(name), StubEnv(action_kind), seed=0, steps=300)
    assert (actions.std(axis=0) > 0).all()


@pytest.mark.parametrize("name", GENERAL)
@every_action_space
def test_the_generator_alone_decides_what_a_policy_does(name: str, action_kind: str) -> None:
    policy, env = make_policy(name), StubEnv(action_kind)
    first = actions_of(policy, env, seed=1, steps=40)
    env.action_space.sample()
    np.testing.assert_array_equal(first, actions_of(policy, env, seed=1, steps=40))
    assert not first.size or (first != actions_of(policy, env, seed=2, steps=40)).any()


def test_sticky_random_holds_its_actions() -> None:
    actions = actions_of(make_policy("sticky-random"), StubEnv("box"), seed=0, steps=800)
    changes = (np.diff(actions, axis=0) != 0).any(axis=1).mean()
    assert 0.08 < changes < 0.18, "one change in eight steps"


def test_smooth_moves_in_small_steps_and_reaches_both_ends() -> None:
    actions = actions_of(make_policy("smooth"), StubEnv("box"), seed=0, steps=2000)
    assert np.abs(np.diff(actions, axis=0)).mean() < 0.5 * np.abs(actions).mean()
    assert actions.min() == -1.0
    assert actions.max() == 1.0


def test_a_constant_policy_takes_a_named_action_for_ever() -> None:
    preset = envs.PRESETS["TinyWorld"]
    env = envs.make(preset)
    policy = Constant(preset.actions["left"])
    policy.reset(env, np.random.default_rng(0))
    assert {int(policy(FRAME)) for _ in range(5)} == {3}


def test_a_constant_action_outside_the_space_is_refused() -> None:
    with pytest.raises(InputError, match="expected"):
        Constant((7,)).reset(StubEnv("discrete"), np.random.default_rng(0))


def test_every_policy_of_the_table_can_be_made_and_is_listed_when_asked_for_another() -> None:
    for name in POLICIES:
        assert callable(make_policy(name))
    for name, hint in (
        ("zzzzzzzz", "known: arcade, drive, minatar, random, roam, shortest-path, smooth, sticky-random, wander"),
        ("driev", "did you mean drive"),
    ):
        with pytest.raises(InputError, match=hint):
            make_policy(name)


# --- the driver ---


class Undrawn:
    """CarRacing whose frames nobody draws: driving only reads the simulator."""

    def __init__(self) -> None:
        self.env = envs.make(envs.PRESETS["CarRacing"])
        drawer: Any = self.env.env  # type: ignore[attr-defined]
        drawer.draw = lambda mode: np.zeros((96, 96, 3), np.uint8)
        self.inner: Any = self.env.unwrapped

    def drive(self, seed: int, steps: int = 150) -> tuple[np.ndarray, float, float]:
        """Actions, (steps, 3), return, and share of steps on the road."""
        policy = Drive()
        self.env.reset(seed=seed)
        policy.reset(self.env, np.random.default_rng(seed))
        actions, total, on_road = [], 0.0, []
        for _ in range(steps):
            actions.append(policy(FRAME))
            _, reward, terminated, truncated, _ = self.env.step(actions[-1])
            total += float(reward)
            on_road.append(any(wheel.tiles for wheel in self.inner.car.wheels))
            if terminated or truncated:
                break
        return np.stack(actions), total, float(np.mean(on_road))


@pytest.fixture(scope="module")
def undrawn() -> Undrawn:
    return Undrawn()


def test_the_driver_follows_the_road_most_of_the_time_and_leaves_it_sometimes(undrawn: Undrawn) -> None:
    drives = [undrawn.drive(seed) for seed in range(24)]
    actions = np.concatenate([actions for actions, _, _ in drives])
    shares = [share for _, _, share in drives]
    assert 0.7 < np.mean(shares) < 0.98
    assert min(shares) < 0.9
    assert np.mean([total for _, total, _ in drives]) > 100
    assert (actions.std(axis=0) > [0.2, 0.2, 0.05]).all()
    assert (actions >= [-1, 0, 0]).all()
    assert (actions <= 1).all()


def test_the_driver_is_a_function_of_seed_and_generator(undrawn: Undrawn) -> None:
    first, total, _ = undrawn.drive(3)
    undrawn.drive(4)
    again, total_again, _ = undrawn.drive(3)
    np.testing.assert_array_equal(first, again)
    assert total == total_again


def test_the_driver_finds_back_to_the_road_when_it_is_spun_around_on_the_grass(undrawn: Undrawn) -> None:
    policy = Drive()
    undrawn.env.reset(seed=11)
    policy.reset(undrawn.env, np.random.default_rng(0))
    for _ in range(40):
        undrawn.env.step(np.array([1.0, 1.0, 0.0], np.float32))
    assert not any(wheel.tiles for wheel in undrawn.inner.car.wheels), "the detour ends on the grass"
    for _ in range(250):
        undrawn.env.step(policy(FRAME))
        if all(wheel.tiles for wheel in undrawn.inner.car.wheels):
            return
    pytest.fail("not back on the road after ten seconds")


def test_the_driver_refuses_other_environments() -> None:
    with pytest.raises(InputError, match=r"CarRacing with continuous actions.*--policy"):
        Drive().reset(envs.make(envs.PRESETS["TinyWorld"]), np.random.default_rng(0))
    with pytest.raises(InputError, match="continuous"):
        Drive().reset(StubEnv("box"), np.random.default_rng(0))


def test_curves_ask_for_less_speed_than_straights() -> None:
    angles = np.concatenate([np.zeros(40), np.linspace(0, np.pi, 12), np.full(40, np.pi)])
    steps = 3.5 * np.stack([-np.sin(angles), np.cos(angles)], axis=1)
    places = np.cumsum(steps, axis=0)
    road = Road([(0.0, a, x, y) for a, (x, y) in zip(angles, places, strict=True)])
    assert road.safe_speed(45, 30.0, grip=60.0) < 0.5 * road.safe_speed(5, 30.0, grip=60.0)


# --- the one that roams through Doom ---


def roamed(frames: Any, steps: int = 600) -> list[str]:
    """Names of what is pressed while `frames(step)` is seen."""
    pytest.importorskip("vizdoom", reason="pip install 'vqvideo[doom]'")
    env = envs.make(envs.PRESETS["Doom"])
    names = envs.named_actions("Doom", ActionSpace.from_gymnasium(env.action_space))
    pressed = {int(number): name for name, (number,) in names.items()}
    policy = make_policy("roam")
    policy.reset(env, np.random.default_rng(0))
    found = [pressed[int(policy(frames(step)))] for step in range(steps)]
    env.close()
    return found


def test_who_roams_walks_most_of_the_time_and_holds_what_it_presses() -> None:
    pressed = roamed(lambda step: np.full((4, 4, 3), step % 2 * 200, np.uint8))
    walked = np.mean([name == "move_forward" for name in pressed])
    assert 0.4 < walked < 0.8
    assert set(pressed) == {"move_forward", "move_left", "move_right", "turn_left", "turn_right"}
    changes = np.mean([one != two for one, two in pairwise(pressed)])
    assert 0.08 < changes < 0.25, "one change in about seven steps"


def test_who_roams_turns_away_from_a_wall() -> None:
    after_move = [two for one, two in pairwise(roamed(lambda _: FRAME)) if one.startswith("move")]
    assert after_move
    assert all(name.startswith("turn") for name in after_move), "the picture stands still"
