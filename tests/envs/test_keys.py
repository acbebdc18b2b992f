"""Keys to play with follow the names of actions, or the space where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from vqvideo.envs import PRESETS
from vqvideo.envs.keys import Controls, controls, to_json
from vqvideo.spaces import ActionSpace


def of(env_id: str, space: spaces.Space) -> Controls:
    return controls(env_id, ActionSpace.from_gymnasium(space))


CAR = spaces.Box(np.array([-1, 0, 0], np.float32), np.array([1, 1, 1], np.float32))


def test_a_car_is_driven_with_the_arrow_keys() -> None:
    how = of("CarRacing", CAR)
    pressed = {key.keys: key.action for key in how.keys}
    assert pressed[("ArrowLeft",)] == PRESETS["CarRacing"].actions["left"]
    assert set(pressed) == {("ArrowLeft",), ("ArrowRight",), ("ArrowUp",), ("ArrowDown",)}
    assert (how.neutral, how.turns) == ((0.0, 0.0, 0.0), False)


def test_two_directions_are_two_keys_together(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"noop": (0.0,), "up": (1.0,), "right": (2.0,), "upright": (3.0,), "uprightfire": (4.0,)}
    monkeypatch.setattr("vqvideo.envs.named_actions", lambda *_: named)
    how = of("Boxing", spaces.Discrete(5))
    assert [key.keys for key in how.keys][2:] == [("ArrowUp", "ArrowRight"), ("ArrowUp", "ArrowRight", "Space")]
    assert how.labels == ("noop", "up", "right", "upright", "uprightfire")


def test_where_no_action_waits_time_passes_with_keys_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "vqvideo.envs.named_actions", lambda *_: {"turn_left": (0.0,), "left": (1.0,), "pickup": (2.0,)}
    )
    how = of("Grid", spaces.Discrete(3))
    assert how.turns
    # The arrow is taken by the first that is called after it.
    assert [key.keys for key in how.keys] == [("ArrowLeft",), ("1",), ("2",)]


@pytest.mark.parametrize(
    ("space", "count"),
    [
        (spaces.Discrete(4, start=2), 3),
        (spaces.MultiBinary(3), 3),
        (spaces.MultiDiscrete([3, 2]), 1),
        (spaces.Box(-1, 1, (2,)), 4),
        (spaces.Box(-np.inf, np.inf, (2,)), 0),
        (spaces.Dict({"arm": spaces.Box(-1, 1, (1,)), "grip": spaces.Discrete(2)}), 3),
        (spaces.Box(0, 1, (0,)), 0),
    ],
    ids=str,
)
def test_every_space_without_names_is_played(space: spaces.Space, count: int) -> None:
    flat = ActionSpace.from_gymnasium(space)
    how = controls("nowhere:Unknown-v0", flat)
    assert len(how.keys) == count
    assert len({key.keys for key in how.keys}) == count
    for action in (how.neutral, *(key.action for key in how.keys)):
        flat.validate(action)
    page = to_json(flat, how, (0.5,) * flat.size, (2.0,) * flat.size)
    assert len(page["columns"]) == flat.size
    assert all(np.isfinite([column["low"], column["high"]]).all() for column in page["columns"])
