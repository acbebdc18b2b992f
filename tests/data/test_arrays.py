"""Stores of arrays: what was given is what a store holds, and what does not fit is refused by its name."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vqvideo.data import write_store
from vqvideo.data.action_inference import inferred
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

RANDOM = np.random.default_rng(0)


def episode(steps: int = 5, **arrays: Any) -> dict[str, Any]:
    frames = RANDOM.integers(0, 256, (steps + 1, 8, 12, 3), np.uint8)
    return {
        "frames": frames,
        "actions": np.arange(steps) % 3,
        "rewards": np.linspace(0, 1, steps),
        "terminated": False,
    } | arrays


def test_what_was_given_is_what_the_store_holds(tmp_path: Path) -> None:
    given = [episode(5 + i, terminated=i == 1) for i in range(7)]
    store = write_store(tmp_path / "mine", given, fps=12, source="my game")
    store.verify()
    assert (store.meta.imported, store.meta.env_id, store.meta.fps) == ("arrays", "mine", 12)
    assert store.meta.action_space == ActionSpace.from_gymnasium(spaces.Discrete(3))
    assert [entry.index for entry in store.split("held_out")] == [5]
    for entry, one in zip(store.entries, given, strict=True):
        stored = store.episode(entry)
        assert np.array_equal(stored.frames, one["frames"])
        assert np.array_equal(stored.actions[:, 0], one["actions"])
        assert np.array_equal(stored.rewards, one["rewards"].astype(np.float32))
        assert (stored.terminated[-1], stored.truncated[-1]) == (entry.index == 1, entry.index != 1)


def test_frames_alone_make_a_store_without_actions(tmp_path: Path) -> None:
    store = write_store(tmp_path, [{"frames": np.zeros((4, 8, 8), np.uint8)}], fps=5)
    stored = store.episode(store.entries[0])
    assert (stored.frames.shape, stored.actions.shape, store.meta.action_space.size) == ((4, 8, 8, 3), (3, 0), 0)
    assert stored.truncated.tolist() == [False, False, True]
    assert not stored.rewards.any()


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ((), ("rewards", "ends")),
        (("rewards",), ("ends",)),
        (("truncated",), ("rewards",)),
        (("rewards", "terminated"), ()),
    ],
)
def test_what_nobody_gave_is_known_to_be_missing(
    given: tuple[str, ...], missing: tuple[str, ...], tmp_path: Path
) -> None:
    whole = episode(truncated=True)
    one = {name: value for name, value in whole.items() if name in ("frames", "actions", *given)}
    assert write_store(tmp_path, [one], fps=5).meta.missing == missing
    with pytest.raises(InputError, match=r"episodes\[0\]: missing of .*: none; .*before: |settings"):
        write_store(tmp_path, [whole] if missing else [{"frames": whole["frames"], "actions": whole["actions"]}], fps=5)


def test_a_generator_is_read_once_and_needs_its_space(tmp_path: Path) -> None:
    def played() -> Iterator[dict[str, Any]]:
        yield from (episode(actions=RANDOM.uniform(-1, 1, (5, 2))) for _ in range(2))

    with pytest.raises(InputError, match=r"only once.*give action_space="):
        write_store(tmp_path / "a", played(), fps=5)
    assert not (tmp_path / "a").exists()
    assert len(write_store(tmp_path / "b", played(), fps=5, action_space=spaces.Box(-1, 1, (2,))).entries) == 2


def test_more_episodes_are_added_to_a_store_of_the_same_settings(tmp_path: Path) -> None:
    write_store(tmp_path, [episode()] * 2, fps=5)
    store = write_store(tmp_path, iter([episode(8, actions=np.zeros(8, int))]), fps=5)
    assert [entry.length for entry in store.entries] == [5, 5, 8]
    with pytest.raises(InputError, match=r"fps: 5.0 -> 6.0"):
        write_store(tmp_path, [episode()], fps=6)


def test_frames_of_another_size_are_fitted(tmp_path: Path) -> None:
    white = np.full((6, 16, 48), 255, np.uint8)
    white[:, :, :16] = white[:, :, 32:] = 0
    store = write_store(tmp_path, [episode(frames=white)], fps=5, frame_size=8)
    frames = store.episode(store.entries[0]).frames
    assert frames.shape == (6, 8, 8, 3)
    assert frames[:, :, 1:-1].min() == 255  # the middle of 16 x 16 was white


@pytest.mark.parametrize(("align", "steps"), [("drop-last", 4), ("repeat-last", 5)])
def test_as_many_frames_as_actions_need_an_alignment(tmp_path: Path, align: Any, steps: int) -> None:
    one = episode(frames=RANDOM.integers(0, 256, (5, 8, 8, 3), np.uint8), terminated=True)
    with pytest.raises(InputError, match=r"episodes\[0\]: 5 frames and 5 actions.*align='drop-last'.*repeat-last"):
        write_store(tmp_path, [one], fps=5)
    store = write_store(tmp_path, [one], fps=5, align=align)
    stored = store.episode(store.entries[0])
    assert np.array_equal(stored.frames[:5], one["frames"])
    assert stored.actions[:, 0].tolist() == one["actions"][:steps].tolist()
    assert len(stored.frames) == steps + 1
    assert stored.terminated[-1] == (align == "repeat-last")
    assert np.array_equal(stored.frames[-1], one["frames"][-1])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "float frames": ({"frames": np.zeros((6, 8, 8, 3))}, r"frames are float64.*255 \* frames"),
    "channels first": ({"frames": np.zeros((6, 3, 8, 8), np.uint8)}, r"\(6, 3, 8, 8\).*moveaxis"),
    "no frames": ({"frames": None}, "frames are missing"),
    "one frame": ({"frames": np.zeros((1, 8, 8, 3), np.uint8)}, "at least two"),
    "a misspelt name": ({"reward": 1}, r"'reward': did you mean rewards"),
    "too few frames": ({"frames": np.zeros((4, 8, 8, 3), np.uint8)}, "4 frames and 5 actions, expected one more"),
    "other lengths": ({"rewards": np.zeros(4)}, "5 actions, 4 rewards for 6 frames"),
    "text rewards": ({"rewards": np.array(["a"] * 5)}, "rewards are <U1"),
    "an end in the middle": ({"terminated": np.arange(5) == 2}, "terminated is True at step 2 of 5"),
    "infinite rewards": ({"rewards": np.full(5, np.inf)}, "rewards: step 0 is inf"),
    "an action outside": ({"actions": np.full(5, 7)}, r"actions\[0\]: column 0 is 7.0.*from 0 to 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_its_name(case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wrong, message = REFUSED[case]
    with pytest.raises(InputError, match=rf"episodes\[1\]: .*{message}"):
        write_store(tmp_path / "s", iter([episode(), episode(**wrong)]), fps=5, action_space=spaces.Discrete(3))
    assert "first 1 episodes are stored" in caplog.text
    assert len(Store.open(tmp_path / "s").entries) == 1


def test_nothing_to_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no episodes were given"):
        write_store(tmp_path, [], fps=5)
    with pytest.raises(InputError, match="put it into a list"):
        write_store(tmp_path, episode(), fps=5)  # type: ignore[arg-type]


# ---------------------------------------------------------------- action spaces


INFERRED: dict[str, tuple[list[Any], spaces.Space[Any]]] = {
    "whole numbers": ([[0, 2], [4, 1]], spaces.Discrete(5)),
    "negative numbers": ([[-1, 1]], spaces.Discrete(3, start=-1)),
    "rows of whole numbers": ([[[0, 3], [1, 0]]], spaces.MultiDiscrete([2, 4])),
    "keys": ([[[True, False]]], spaces.MultiBinary(2)),
    "a stick": ([[[-1.0], [0.0]], [[1.0], [0.5]]], spaces.Box(np.float32(-1.2), np.float32(1.2), (1,))),
}


@pytest.mark.parametrize("case", INFERRED)
def test_the_action_space_follows_from_the_actions(case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    actions, space = INFERRED[case]
    caplog.set_level(logging.INFO)
    store = write_store(tmp_path, [episode(len(a), actions=np.array(a)) for a in actions], fps=5)
    assert store.meta.action_space == ActionSpace.from_gymnasium(space)
    assert "action space inferred" in caplog.text


@pytest.mark.parametrize("actions", [[[0, 1], [0.5, 1.0]], [[0, 9999]]], ids=["some are floats", "too many choices"])
def test_whole_numbers_that_are_no_choices_are_in_a_box(actions: list[Any]) -> None:
    space = inferred((np.array(part)[:, None], False) for part in actions)
    assert "Box(" in str(space)
    for part in actions:
        space.validate(np.array(part)[:, None])


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([[[0, 1]], [[0, 1, 2]]], r"episodes\[1\]: actions have 3 columns, those of episodes\[0\] 2"),
        ([[np.nan]], "finite"),
        ([["up"]], "expected finite numbers"),
    ],
)
def test_no_space_is_inferred_from_actions_that_do_not_tell(actions: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        write_store(tmp_path / "s", [episode(len(a), actions=np.array(a)) for a in actions], fps=5)
    assert not (tmp_path / "s").exists()


@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 3)), elements=st.floats(-1e6, 1e6)))
@settings(max_examples=50, deadline=None)
def test_an_inferred_box_holds_what_it_was_inferred_from(actions: np.ndarray) -> None:
    inferred([(actions, True)]).validate(actions)


def test_writing_arrays_needs_no_torch() -> None:
    code = "import sys; from vqvideo.data import write_store; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "False"
