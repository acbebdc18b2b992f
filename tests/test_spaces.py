"""Action spaces: what goes in comes out, and nothing outside the space gets through."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_envs import ACTION_SPACES

from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

CAR = spaces.Box(np.array([-1, 0, 0], np.float32), np.ones(3, np.float32))
NESTED = spaces.Dict({"arm": spaces.Tuple([spaces.Box(-1, 1, (2,)), spaces.Discrete(2)]), "z": spaces.MultiBinary(3)})


leaf_spaces = st.sampled_from(
    [
        *(space for space in ACTION_SPACES.values() if not isinstance(space, spaces.Dict | spaces.Tuple)),
        spaces.Box(0.1, 0.3, (), np.float32),
        spaces.Box(-np.inf, 2, (2, 1), np.float32),
        spaces.Box(2, 2, (1,), np.float64),
        spaces.Box(0, 200, (3,), np.uint8),
        spaces.Discrete(3, start=-4),
        spaces.MultiDiscrete([5, 1, 2], start=[-3, 0, 3]),
        spaces.MultiDiscrete(np.array([[3, 4], [5, 2]]), dtype=np.int32),
        spaces.MultiBinary((2, 2)),
    ]
).map(deepcopy)
any_space = st.recursive(
    leaf_spaces,
    lambda inner: st.one_of(
        st.builds(spaces.Tuple, st.lists(inner, min_size=1, max_size=3)),
        st.builds(spaces.Dict, st.dictionaries(st.sampled_from("xyz"), inner, min_size=1)),
    ),
    max_leaves=4,
)


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[k], two[k]) for k in one)
    if isinstance(one, tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return np.array_equal(one, two)


@settings(max_examples=50, deadline=None)
@given(any_space, st.integers(0, 2**31))
def test_any_sample_survives_the_flat_form_exactly(space: gymnasium.Space, seed: int) -> None:
    space.seed(seed)
    ours = ActionSpace.from_gymnasium(space)
    sample = space.sample()
    vector = ours.flatten(sample)
    assert vector.shape == (ours.size,)
    assert vector.dtype == np.float64
    assert space.contains(ours.unflatten(vector))
    assert same(ours.unflatten(vector), sample)


@settings(max_examples=50, deadline=None)
@given(any_space, st.integers(0, 2**31))
def test_any_space_survives_json_and_is_made_again_from_it(space: gymnasium.Space, seed: int) -> None:
    ours = ActionSpace.from_gymnasium(space)
    again = ActionSpace.from_json(json.loads(json.dumps(ours.to_json(), allow_nan=False, sort_keys=True)))
    assert (again, hash(again), again.columns, str(again)) == (ours, hash(ours), ours.columns, str(ours))
    native = again.native()
    assert native == space
    space.seed(seed), native.seed(seed)
    assert same(native.sample(), space.sample())


def test_the_description_of_a_space_stays_what_is_on_disk() -> None:
    space = spaces.Dict([("z", spaces.Discrete(5, start=-2)), ("a", spaces.Tuple([spaces.Box(-np.inf, 2, (1, 2))]))])
    assert ActionSpace.from_gymnasium(space).to_json() == {
        "kind": "dict",
        "keys": ["z", "a"],
        "spaces": [
            {"kind": "discrete", "shape": [], "dtype": "int64", "low": [-2], "high": [2]},
            {
                "kind": "tuple",
                "spaces": [
                    {"kind": "box", "shape": [1, 2], "dtype": "float32", "low": ["-inf", "-inf"], "high": [2.0, 2.0]}
                ],
            },
        ],
    }


def test_columns_follow_the_leaves_and_say_what_a_prior_needs() -> None:
    ours = ActionSpace.from_gymnasium(NESTED)
    arm, button = ("arm/0", None, 0, -1.0, 1.0), ("z", 2, 0, 0, 1)
    assert ours.columns == (arm, arm, ("arm/1", 2, 0, 0, 1), button, button, button)
    assert ActionSpace.from_gymnasium(spaces.Discrete(5, start=-2)).columns == (("", 5, -2, -2, 2),)


@pytest.mark.parametrize(
    ("space", "action", "message"),
    [
        (CAR, [np.nan, 0, 0], "column 0 is nan, expected a number from -1.0 to 1.0"),
        (CAR, [0, 0, -0.1], "column 2 is -0.1, expected a number from 0.0 to 1.0"),
        (CAR, 0.5, r"shape \(\), expected \(3,\)"),
        (CAR, None, "type object"),
        (CAR, ["a", "b", "c"], "found.*'a'"),
        (CAR, [[1], [1, 2], [3]], "expected Box"),
        (spaces.Discrete(5), 5, "column 0 is 5.0, expected a whole number from 0 to 4"),
        (spaces.Discrete(5), 2.0, r"type float64, expected Discrete\(5\)"),
        (spaces.Discrete(5), [2], r"shape \(1,\), expected \(\)"),
        (spaces.Discrete(5, start=3), 2, "from 3 to 7"),
        (spaces.MultiDiscrete([3, 2]), [2, 2], "column 1 is 2.0"),
        (NESTED, {"arm": ([0, 0], 1)}, r"found \['arm'\], expected a dict with keys \['arm', 'z'\]"),
        (NESTED, {"arm": ([0, 0],), "z": [0, 0, 0]}, "action at 'arm': .*expected a tuple of 2"),
        (NESTED, {"arm": ([0, 3], 1), "z": [0, 0, 0]}, r"column 1 \(leaf 'arm/0'\) is 3.0"),
    ],
)
def test_an_action_outside_its_space_is_refused(space: gymnasium.Space, action: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ActionSpace.from_gymnasium(space).flatten(action)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((4, 2)), r"expected numbers \(..., 1\) for Discrete\(5\)"),
        (np.zeros(()), "expected numbers"),
        (np.array(["x"]), "expected numbers"),
        (np.array([[0.0], [1.5]]), r"^actions\[1\]: column 0 is 1.5, expected a whole number from 0 to 4"),
        (np.full((2, 3, 1), np.nan), r"actions\[0, 0\]: column 0 is nan"),
    ],
)
def test_flat_actions_outside_their_space_are_refused_with_their_place(vectors: np.ndarray, message: str) -> None:
    ours = ActionSpace.from_gymnasium(spaces.Discrete(5))
    with pytest.raises(InputError, match=message):
        ours.validate(vectors, "actions")
    ours.validate(np.array([[4.0], [0.0]], np.float32))
    with pytest.raises(InputError, match=r"shape \(2, 1\), expected \(1,\)"):
        ours.unflatten(np.zeros((2, 1)))


def test_rounding_to_float32_is_forgiven_but_never_reaches_the_environment() -> None:
    space = spaces.Box(np.array([0.1], np.float64), np.array([0.3]), dtype=np.float64)
    ours = ActionSpace.from_gymnasium(space)
    rounded = np.array([0.3], np.float32)
    assert float(rounded[0]) > 0.3
    ours.validate(rounded)
    assert space.contains(ours.unflatten(rounded))
    with pytest.raises(InputError, match=r"0\.30001"):
        ours.validate([0.30001])


@pytest.mark.parametrize("space", [spaces.Text(5), spaces.Tuple([spaces.Text(5)]), object()])
def test_an_unsupported_space_is_named(space: Any) -> None:
    with pytest.raises(InputError, match="not supported; known: Box, Discrete"):
        ActionSpace.from_gymnasium(space)


EMPTY = (ActionSpace.none().native(), spaces.Dict({}), spaces.Tuple([]), spaces.Dict({"arm": spaces.Tuple([])}))


@pytest.mark.parametrize("space", EMPTY, ids=str)
def test_a_space_without_actions_has_no_columns_and_its_own_empty_action(space: gymnasium.Space) -> None:
    ours = ActionSpace.from_gymnasium(space)
    assert (ours.size, ours.columns, str(ours)) == (0, (), "an empty space (no actions)")
    assert ActionSpace.from_json(json.loads(json.dumps(ours.to_json()))) == ours
    flat = ours.flatten(space.sample())
    assert (flat.shape, flat.dtype) == ((0,), np.float64)
    assert same(ours.unflatten(flat), space.sample())
    assert [limit.shape for limit in ours.limits] == [(0,)] * 3
    ours.validate(np.zeros((5, 3, 0)))
    with pytest.raises(InputError, match=r"shape \(5, 1\), expected numbers \(..., 0\) for an empty space"):
        ours.validate(np.zeros((5, 1)))
    assert ours != ActionSpace.from_gymnasium(spaces.Discrete(1))


def test_a_subclass_of_a_known_space_is_known() -> None:
    class Throttle(spaces.Box):
        pass

    assert ActionSpace.from_gymnasium(Throttle(0, 1, (1,))).native() == spaces.Box(0, 1, (1,))


GOOD = ActionSpace.from_gymnasium(spaces.MultiDiscrete([3, 2])).to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "text"},
        {"dtype": "object"},
        {"shape": [3]},
        {"shape": [-1, -2]},
        {"low": ["nan", 0]},
        {"low": [5, 0]},
        {"high": [2**40, 1]},
        {"kind": "discrete"},
        {"kind": "tuple", "spaces": [1]},
        {"kind": "box", "shape": [2], "dtype": "float32", "low": [-(10**400), 0], "high": [1, 1]},
    ],
)
def test_a_malformed_description_is_refused(change: dict[str, Any]) -> None:
    ActionSpace.from_json(GOOD)
    with pytest.raises(InputError, match="action space"):
        ActionSpace.from_json(GOOD | change)
    for value in (None, [], "box", {}, {"kind": "tuple"}):
        with pytest.raises(InputError, match="malformed"):
            ActionSpace.from_json(value)
