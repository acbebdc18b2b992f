"""The checker of vector environments finds what is broken in a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from imagined import dream, dreams, endless, some_world
from vector_checker import check_vector_env

from vqvideo.imagined_env import ImaginedVectorEnv
from vqvideo.world import WorldModel

Results = tuple[Any, Any, Any, Any, dict[str, Any]]


@pytest.fixture(scope="module")
def world() -> WorldModel:
    return some_world(stride=1)


def check(world: WorldModel, broken: Callable[[ImaginedVectorEnv], VectorEnv], mode: str, horizon: int = 3) -> None:
    """Checks a batch of two that something was done to."""
    check_vector_env(
        lambda: broken(dreams(world, 2, horizon=3, autoreset_mode=mode)),
        lambda: dream(world, horizon=horizon),
        steps=6,
        seed=1,
    )


class Changed(VectorWrapper):
    """Changes the results of each step."""

    def __init__(self, env: VectorEnv, change: Callable[[Results], Results]) -> None:
        super().__init__(env)
        self.change = change

    def step(self, actions: Any) -> Results:
        return self.change(super().step(actions))


def without(*names: str) -> Callable[[Results], Results]:
    return lambda results: (*results[:4], {name: value for name, value in results[4].items() if name not in names})


def with_all_masks_true(results: Results) -> Results:
    masks = {name: value | True for name, value in results[4].items() if name.startswith("_")}
    return *results[:4], results[4] | masks


CHANGES: list[tuple[str, Callable[[Results], Results], str]] = [
    ("SameStep", without("final_obs"), r"infos has .*, expected .*final_obs"),
    ("NextStep", with_all_masks_true, r"infos\['_\w+'\] differs at"),
    ("NextStep", lambda r: (r[0], r[1].astype(np.float32), *r[2:]), r"rewards is \(dtype\('float32'\), .*'float64'"),
    ("NextStep", lambda r: (np.minimum(r[0], 253) + np.uint8(2), *r[1:]), "observations differs at"),
    ("NextStep", lambda r: (r[0], list(r[1]), *r[2:]), "rewards is a list, expected a ndarray"),
]


@pytest.mark.parametrize(("mode", "change", "message"), CHANGES)
def test_a_change_of_what_a_step_gives_is_found(
    world: WorldModel, mode: str, change: Callable[[Results], Results], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        check(world, lambda envs: Changed(envs, change), mode)


class OneBuffer(VectorWrapper):
    """Returns the same array of observations at every step."""

    def step(self, actions: Any) -> Results:
        results = super().step(actions)
        self.buffer = getattr(self, "buffer", np.empty_like(results[0]))
        self.buffer[:] = results[0]
        return self.buffer, *results[1:]


class ChangesActions(VectorWrapper):
    """Clips actions where they lie."""

    def step(self, actions: Any) -> Results:
        results = super().step(actions)
        np.minimum(actions, 1, out=actions)
        return results


class ResetsAll(VectorWrapper):
    """Does not look at the mask of a reset."""

    def reset(self, **options: Any) -> Any:
        return super().reset(seed=options.get("seed"))


BROKEN: list[tuple[str, type[VectorWrapper], str]] = [
    ("SameStep", OneBuffer, r"written into after it was returned: \[0\] differs"),
    ("NextStep", ChangesActions, "actions were written into"),
    ("Disabled", ResetsAll, r"reset of \[.*observations differs|reset of \[.*infos"),
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


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("metadata", {}, r"metadata\['autoreset_mode'\] is None, expected an AutoresetMode"),
        ("metadata", {"autoreset_mode": AutoresetMode.SAME_STEP}, "step 0: observations differs at"),
        ("action_space", spaces.Discrete(5), r"action_space is Discrete\(5\), not a batch of Discrete\(5\)"),
    ],
)
def test_wrong_spaces_and_a_wrong_mode_are_found(world: WorldModel, name: str, value: Any, message: str) -> None:
    def wrong(envs: ImaginedVectorEnv) -> ImaginedVectorEnv:
        setattr(envs, name, value)
        return envs

    with pytest.raises(AssertionError, match=message):
        check(world, wrong, "NextStep")


def test_a_check_in_which_no_episode_ends_is_refused() -> None:
    world = endless()
    with pytest.raises(AssertionError, match="no episode ended in 6 steps"):
        check_vector_env(lambda: dreams(world, 2, horizon=9), lambda: dream(world, horizon=9), 6, 0)
