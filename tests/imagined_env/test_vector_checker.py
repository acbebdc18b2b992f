"""The checker of vector environments finds what is broken in a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from imagined import dream, dreams, endless, some_world
from tiny_models import STEERING, tiny_world
from vector_checker import check_vector_env

from vqvideo.imagined_env import ImaginedEnv, ImaginedVectorEnv
from vqvideo.world import WorldModel

Told = tuple[Any, Any, Any, Any, dict[str, Any]]


@pytest.fixture(scope="module")
def world() -> WorldModel:
    return some_world(stride=1)


def check(world: WorldModel, broken: Callable[[ImaginedVectorEnv], VectorEnv], mode: str, **single: Any) -> None:
    """Checks a batch of two that something was done to."""

    def make_vector() -> VectorEnv:
        return broken(dreams(world, 2, horizon=3, autoreset_mode=mode))

    def make_single() -> ImaginedEnv:
        return dream(world, **({"horizon": 3} | single))

    check_vector_env(make_vector, make_single, steps=6, seed=1)


class Broken(VectorWrapper):
    """Changes the results of each step."""

    def __init__(self, env: VectorEnv, change: Callable[[Told], Told]) -> None:
        super().__init__(env)
        self.change = change

    def step(self, actions: Any) -> Told:
        return self.change(super().step(actions))


def without(*names: str) -> Callable[[Told], Told]:
    def change(told: Told) -> Told:
        return *told[:4], {name: value for name, value in told[4].items() if name not in names}

    return change


def of_another_type(told: Told) -> Told:
    return told[0], told[1].astype(np.float32), *told[2:]


def with_all_masks_true(told: Told) -> Told:
    masks = {name: value | True for name, value in told[4].items() if name.startswith("_")}
    return *told[:4], told[4] | masks


def brighter(told: Told) -> Told:
    return np.minimum(told[0], 253) + np.uint8(2), *told[1:]


def both_kinds_of_end(told: Told) -> Told:
    return *told[:2], told[2] | told[3], *told[3:]


def upside_down(told: Told) -> Told:
    return *told[:4], {name: value[::-1] if name == "frames" else value for name, value in told[4].items()}


def a_list(told: Told) -> Told:
    return told[0], list(told[1]), *told[2:]


def with_the_first_observation_as_the_final_one(told: Told) -> Told:
    over = told[4].get("_final_obs", np.zeros(2, bool))
    for i in np.flatnonzero(over):
        told[4]["final_obs"][i] = told[0][i]
    return told


CHANGES: list[tuple[str, Callable[[Told], Told], str]] = [
    ("SameStep", without("final_obs"), r"infos has .*, expected .*final_obs"),
    ("SameStep", without("_final_info"), r"infos has .*, expected .*_final_info"),
    ("SameStep", with_the_first_observation_as_the_final_one, r"infos\['final_obs'\]\[\d\] differs at"),
    ("NextStep", without("entropy", "_entropy"), r"infos has .*, expected .*entropy"),
    ("NextStep", with_all_masks_true, r"infos\['_\w+'\] differs at"),
    ("NextStep", of_another_type, r"rewards is \(dtype\('float32'\), .*expected \(dtype\('float64'\)"),
    ("NextStep", brighter, "observations differs at"),
    ("NextStep", both_kinds_of_end, "terminated differs at"),
    ("NextStep", upside_down, r"infos\['frames'\] differs at"),
    ("NextStep", a_list, "rewards is a list, expected a ndarray"),
]


@pytest.mark.parametrize(("mode", "change", "message"), CHANGES)
def test_a_change_of_what_a_step_gives_is_found(
    world: WorldModel, mode: str, change: Callable[[Told], Told], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        check(world, lambda envs: Broken(envs, change), mode)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_nothing_is_found_where_nothing_is_broken(world: WorldModel, mode: str) -> None:
    check(world, lambda envs: Broken(envs, lambda told: told), mode)


class RewardsAtResets(VectorWrapper):
    """Gives the last reward once more in the step that is a reset."""

    def step(self, actions: Any) -> Told:
        told = super().step(actions)
        beginning = told[4].get("_start", np.zeros(2, bool))
        rewards = np.where(beginning, self.last, told[1]) if hasattr(self, "last") else told[1]
        self.last = told[1]
        return told[0], rewards, *told[2:]


class OneBuffer(VectorWrapper):
    """Returns the same array of observations at every step."""

    def step(self, actions: Any) -> Told:
        told = super().step(actions)
        self.buffer = getattr(self, "buffer", np.empty_like(told[0]))
        self.buffer[:] = told[0]
        return self.buffer, *told[1:]


class ChangesActions(VectorWrapper):
    """Clips actions where they lie."""

    def step(self, actions: Any) -> Told:
        told = super().step(actions)
        np.minimum(actions, 1, out=actions)
        return told


class ResetsAll(VectorWrapper):
    """Does not look at the mask of a reset."""

    def reset(self, **options: Any) -> Any:
        return super().reset(seed=options.get("seed"))


class OneSeed(VectorWrapper):
    """Seeds all envs alike."""

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return super().reset(seed=[seed] * 2 if isinstance(seed, int) else seed, options=options)


class ResetsWithoutInfo(VectorWrapper):
    """Tells nothing of a reset."""

    def reset(self, **options: Any) -> Any:
        return super().reset(**options)[0], {}


BROKEN: list[tuple[str, type[VectorWrapper], str]] = [
    ("NextStep", RewardsAtResets, "rewards differs at"),
    ("NextStep", OneBuffer, r"written into after it was returned: \[0\] differs"),
    ("SameStep", OneBuffer, r"written into after it was returned: \[0\] differs"),
    ("NextStep", ChangesActions, "actions were written into"),
    ("Disabled", ResetsAll, r"reset of \[.*observations differs|reset of \[.*infos"),
    ("NextStep", OneSeed, "reset 0: observations differs|reset 0: infos"),
    ("NextStep", ResetsWithoutInfo, r"reset 0: infos has \[\], expected \['_start', 'start'\]"),
]


@pytest.mark.parametrize(("mode", "broken", "message"), BROKEN)
def test_a_batch_that_breaks_a_rule_is_found(
    world: WorldModel, mode: str, broken: type[VectorWrapper], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        check(world, broken, mode)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_a_horizon_that_is_one_off_is_found(world: WorldModel, mode: str) -> None:
    with pytest.raises(AssertionError, match=r"differs at|infos has"):
        check(world, lambda envs: envs, mode, horizon=4)


def test_a_wrong_mode_in_the_metadata_is_found(world: WorldModel) -> None:
    def silent(envs: ImaginedVectorEnv) -> ImaginedVectorEnv:
        del envs.metadata["autoreset_mode"]
        return envs

    def lying(envs: ImaginedVectorEnv) -> ImaginedVectorEnv:
        envs.metadata["autoreset_mode"] = AutoresetMode.SAME_STEP
        return envs

    with pytest.raises(AssertionError, match=r"metadata\['autoreset_mode'\] is None, expected an AutoresetMode"):
        check(world, silent, "NextStep")
    with pytest.raises(AssertionError, match="step 0: observations differs at"):
        check(world, lying, "NextStep")


def test_wrong_spaces_are_found(world: WorldModel) -> None:
    def darker(envs: ImaginedVectorEnv) -> ImaginedVectorEnv:
        envs.single_observation_space = spaces.Box(0, 200, (16, 16, 3), np.uint8)
        return envs

    def unbatched(envs: ImaginedVectorEnv) -> ImaginedVectorEnv:
        envs.action_space = spaces.Discrete(5)
        return envs

    with pytest.raises(AssertionError, match="single_observation_space is Box"):
        check(world, darker, "NextStep")
    with pytest.raises(AssertionError, match=r"action_space is Discrete\(5\), not a batch of Discrete\(5\)"):
        check(world, unbatched, "NextStep")
    with pytest.raises(AssertionError, match=r"single_action_space is Discrete\(5\), not that of one env"):
        check_vector_env(lambda: dreams(world), lambda: dream(tiny_world(space=STEERING)), 6, 0)


def test_a_check_in_which_no_episode_ends_is_refused() -> None:
    world = endless()
    with pytest.raises(AssertionError, match="no episode ended in 6 steps"):
        check_vector_env(lambda: dreams(world, 2, horizon=9), lambda: dream(world, horizon=9), 6, 0)
