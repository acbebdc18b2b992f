"""What imagined environments refuse, in words that help, and that nothing has happened after a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from imagined import SPACES, dream, dreams, endless, same
from stores import make_meta, make_store
from tiny_models import SIZE, STEERING, noise_frames, tiny_store, tiny_world
from torch import Tensor

from vqvideo.data.clips import StartClips
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError
from vqvideo.imagined_env import ImaginedVectorEnv, NotResetError
from vqvideo.imagined_env.starts import read_starts
from vqvideo.world import WorldStep

STEER = np.zeros((3, 2), np.float32)
GEARS = np.array([1, 2, 3])

# ---------------------------------------------------------------- actions

REFUSED: list[tuple[str, Any, str]] = [
    ("discrete", np.array([0, 5, 1]), r"env 1: action: column 0 is 5\.0, .* from 0 to 4 \(Discrete\(5\)\)"),
    ("discrete", np.array([1.9, 1.0, 0.0]), r"found .*1\.9.*float64 of shape \(3,\), expected one of Discrete\(5\)"),
    ("discrete", [0, 1, 9], r"env 2: action: column 0 is 9\.0"),
    ("discrete", np.array([[0], [1], [2]]), r"of shape \(3, 1\), expected one of Discrete\(5\) for each of 3 envs"),
    ("discrete", np.array([0, 1]), r"of shape \(2,\), expected one of Discrete\(5\) for each of 3 envs"),
    ("discrete", None, r"actions: found None of type object, expected 3 of Discrete\(5\)"),
    ("box", np.array([[0, 0], [0, 0], [0, 2.5]]), r"env 2: action: column 1 is 2\.5, .*0\.0 to 2.*Box\("),
    ("box", np.array([[np.nan, 0], [0, 0], [0, 0]]), r"env 0: action: column 0 is nan"),
    ("box", np.zeros((3, 3)), r"float64 of shape \(3, 3\), expected one of Box\("),
    ("box", [[0.0, 1.0], [0.0], [0.0, 1.0]], r"actions: .*inhomogeneous.*; expected 3 of Box\("),
    ("dict", {"gear": GEARS - 1, "steer": STEER}, r"env 0: action: column 0 \(leaf 'gear'\) is 0\.0"),
    ("dict", {"gear": GEARS, "steer": STEER - [[0, 0], [0, 2], [0, 0]]}, r"env 1: action: column 2 \(leaf 'steer'\)"),
    ("dict", {"gear": GEARS[:2], "steer": STEER}, r"actions \(leaf 'gear'\): .* shape \(2,\), expected one of Disc"),
    ("dict", {"gear": GEARS}, r"expected a dict with keys \['gear', 'steer'\]"),
    ("tuple", (np.full((3, 2), 2), STEER), r"env 0: action: column 0 \(leaf '0'\) is 2\.0"),
]  # fmt: skip


@pytest.mark.parametrize(("space", "actions", "message"), REFUSED)
def test_actions_outside_the_space_name_env_value_and_space_and_nothing_has_happened(
    space: str, actions: Any, message: str
) -> None:
    world = endless(space=SPACES[space])
    envs, other = dreams(world), dreams(world)
    envs.action_space.seed(0)
    for one in (envs, other):
        one.reset(seed=0)
    for good in (envs.action_space.sample(), envs.action_space.sample()):
        with pytest.raises(InputError, match=message):
            envs.step(actions)
        assert same(envs.step(good), other.step(good))


def test_a_single_env_refuses_them_too() -> None:
    env, other = dream(endless()), dream(endless())
    env.reset(seed=0)
    other.reset(seed=0)
    for action, message in ((5, r"5\.0.* from 0 to 4 \(Discrete\(5\)\)"), ([1], r"shape \(1,\), expected \(\)")):
        with pytest.raises(InputError, match=message):
            env.step(action)
    assert same(env.step(3), other.step(3))


def test_a_list_of_good_actions_is_as_good_as_an_array() -> None:
    one, two = dreams(endless()), dreams(endless())
    one.reset(seed=0)
    two.reset(seed=0)
    assert same(one.step([1, np.int64(4), torch.tensor(0)]), two.step(np.array([1, 4, 0])))


def test_an_env_that_is_about_to_begin_anew_takes_any_action() -> None:
    """Its action means nothing: Gymnasium's own vector environments ignore it too."""
    envs = dreams(endless(), horizon=2)
    envs.reset(seed=0)
    envs.step(np.zeros(3, int))
    assert envs.step(np.zeros(3, int))[3].all()
    assert envs.step(np.array([9, -1, 99]))[4]["_start"].all()
    with pytest.raises(InputError, match=r"env 0: action: column 0 is 9"):
        envs.step(np.array([9, -1, 99]))


def test_only_the_envs_that_go_on_need_good_actions() -> None:
    envs = dreams(endless(), horizon=3)
    envs.reset(seed=0)
    envs.step(np.zeros(3, int))
    envs.reset(options={"reset_mask": np.array([True, False, False])})
    envs.step(np.zeros(3, int))
    assert envs.step(np.zeros(3, int))[3].tolist() == [False, True, True]
    with pytest.raises(InputError, match="env 0: action"):
        envs.step(np.array([9, 0, 0]))
    assert envs.step(np.array([0, 9, 9]))[4]["_start"].tolist() == [False, True, True]


# ---------------------------------------------------------------- order


def test_a_step_before_the_first_reset_is_refused() -> None:
    for refused in (
        lambda: dreams().step(np.zeros(3, int)),
        lambda: dream().step(0),
        lambda: dreams(autoreset_mode="Disabled").step(np.zeros(3, int)),
    ):
        with pytest.raises(NotResetError, match="step was called before reset: call reset first"):
            refused()
    assert issubclass(NotResetError, gymnasium.error.ResetNeeded)
    with pytest.raises(NotResetError, match="render was called before reset"):
        dreams(render_mode="rgb_array").render()


def test_without_autoreset_an_env_that_is_over_takes_no_step() -> None:
    envs = dreams(endless(), horizon=2, autoreset_mode="Disabled")
    envs.reset(seed=0)
    envs.step(np.zeros(3, int))
    envs.reset(options={"reset_mask": np.array([False, True, False])})
    before = envs.step(np.zeros(3, int))
    assert before[3].tolist() == [True, False, True]
    with pytest.raises(NotResetError, match=r"env 0, 2: the episode is over and autoreset is disabled: call reset"):
        envs.step(np.zeros(3, int))
    envs.reset(options={"reset_mask": np.array([True, False, False])})
    with pytest.raises(NotResetError, match="env 2: the episode is over"):
        envs.step(np.zeros(3, int))
    envs.reset(options={"reset_mask": np.array([False, False, True])})
    assert envs.step(np.zeros(3, int))[3].tolist() == [False, True, False]


# ---------------------------------------------------------------- resets


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reset_masc": np.ones(3, bool)}, "reset option 'reset_masc' is unknown, expected one of reset_mask, fr"),
        ({"reset_mask": np.ones(2, bool)}, r"options\['reset_mask'\] is torch.bool of shape \(2,\)"),
        ({"reset_mask": np.ones((3, 1), bool)}, r"of shape \(3, 1\)"),
        ({"reset_mask": np.ones(3)}, r"is torch.float64 of shape \(3,\) .* expected bool of shape \(3,\)"),
        ({"reset_mask": np.zeros(3, bool)}, "with 0 True, .*at least one True"),
        ({"reset_mask": "all"}, "options\\['reset_mask'\\]: found 'all'"),
        ({"actions": np.zeros((3, 2, 1))}, "'actions' without 'frames'"),
        ({"frames": np.zeros((2, 1, SIZE, SIZE, 3), np.uint8)}, r"\(2, 1, 16, 16, 3\), expected \(3, t, h, w, 3\)"),
        ({"frames": np.zeros((SIZE, SIZE, 3), np.uint8)}, r"of shape \(16, 16, 3\), expected \(3, t, h, w, 3\)"),
        ({"frames": np.zeros((3, 1, 8, 8, 3), np.uint8)}, r"expected \(3, t, 16, 16, 3\)"),
        ({"frames": np.zeros((3, 1, SIZE, SIZE, 3), int)}, "frames of type torch.int64"),
        ({"frames": np.zeros((3, 2, SIZE, SIZE, 3), np.uint8)}, "a clip of 2 frames, expected 1 \\+ 2 k"),
        ({"frames": np.zeros((3, 3, SIZE, SIZE, 3), np.uint8)}, r"\(3, 0\) context actions, expected \(3, 2\)"),
        (
            {"frames": np.zeros((3, 3, SIZE, SIZE, 3), np.uint8), "actions": np.zeros((2, 2, 1))},
            r"options\['actions'\] of shape \(2, 2, 1\), expected \(3, t - 1, a\)",
        ),
        (
            {"frames": np.zeros((3, 3, SIZE, SIZE, 3), np.uint8), "actions": np.full((3, 2, 1), 7.0)},
            r"7\.0, expected a whole number from 0 to 4",
        ),
        ({"frames": np.zeros((3, 9, SIZE, SIZE, 3), np.uint8), "actions": np.zeros((8, 1))}, "a context of 5 latent"),
    ],
)  # fmt: skip
def test_bad_options_of_a_reset_are_refused_and_nothing_has_happened(options: dict[str, Any], message: str) -> None:
    envs, other = (dreams(endless(), autoreset_mode="Disabled") for _ in range(2))
    for one in (envs, other):
        one.reset(seed=0)
        one.step(np.zeros(3, int))
    with pytest.raises(InputError, match=message):
        envs.reset(seed=9, options=options)
    assert same(envs.step(np.array([1, 2, 3])), other.step(np.array([1, 2, 3])))
    assert same(envs.reset(), other.reset())


def test_a_partial_reset_cannot_come_first() -> None:
    envs = dreams(autoreset_mode="Disabled")
    with pytest.raises(NotResetError, match="a reset_mask came first: reset all envs once before"):
        envs.reset(options={"reset_mask": np.array([True, False, True])})
    envs.reset(options={"reset_mask": np.ones(3, bool)})


def test_another_number_of_seeds_is_refused() -> None:
    for seeds in ([1, 2], [1, 2, 3, 4], []):
        with pytest.raises(InputError, match=f"{len(seeds)} seeds for 3 envs, expected one number or one for each"):
            dreams().reset(seed=seeds)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"autoreset_mode": "same"}, "autoreset_mode is 'same', expected one of 'NextStep', 'SameStep', 'Disabled'"),
        ({"output": "jax"}, "output is 'jax', expected one of numpy, torch"),
        ({"render_mode": "ansi"}, "render_mode is 'ansi', expected None or one of human, rgb_array"),
        ({"horizon": 0}, "horizon is 0, expected a whole number of at least 1"),
        ({"num_envs": 0}, "num_envs is 0, expected a whole number of at least 1"),
    ],
)
def test_unknown_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dreams(**settings)


@pytest.mark.parametrize(
    ("values", "shape"), [(torch.zeros(3, 1), r"\(3, 1\)"), (0.0, r"\(\)"), (torch.zeros(2), r"\(2,\)")]
)
def test_a_reward_that_is_not_one_number_per_env_is_refused(values: Tensor, shape: str) -> None:
    def reward(step: WorldStep) -> Tensor:
        return values

    envs = dreams(reward=reward)
    envs.reset(seed=0)
    with pytest.raises(InputError, match=rf"reward gave shape {shape}, expected \(3,\): one number for each env"):
        envs.step(np.zeros(3, int))


# ---------------------------------------------------------------- starts


def test_episodes_shorter_than_the_context_are_refused(tmp_path: Path) -> None:
    store = tiny_store(tmp_path, steps=2)
    assert len(read_starts(tiny_world(stride=1), store, 2, 9)) == 4
    for stride, context in ((1, 3), (2, 2)):
        with pytest.raises(InputError, match=r"longest train episode of .* has 3 frames, expected at least 4: a conte"):
            read_starts(tiny_world(stride), store, context, 9)


def test_clips_shorter_than_the_context_are_refused() -> None:
    clips = StartClips(noise_frames(4, 3), torch.ones(4, 2, 1), torch.zeros(4, 2))
    with pytest.raises(InputError, match=r"start clips of shape \(4, 3, 3, 16, 16\) with .*expected .* t >= 5: longer"):
        read_starts(tiny_world(), clips, 3, 9)


def test_a_context_longer_than_the_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a context of 4 latent steps, the prior looks back over 3"):
        read_starts(tiny_world(), tiny_store(tmp_path), 4, 9)


@pytest.mark.parametrize(("context", "count"), [(0, 5), (1, 0)])
def test_a_context_of_nothing_is_refused(tmp_path: Path, context: int, count: int) -> None:
    with pytest.raises(InputError, match=r"(context|max_starts) is 0, expected a whole number of at least 1"):
        read_starts(tiny_world(), tiny_store(tmp_path), context, count)


def test_a_store_of_other_actions_or_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has actions in Discrete\(5\), the world model takes Box\("):
        ImaginedVectorEnv(tiny_world(space=STEERING), tiny_store(tmp_path / "one"))
    with pytest.raises(InputError, match=r"frames of \(h, w\) \(4, 6\), the world model takes \(16, 16\)"):
        ImaginedVectorEnv(tiny_world(), make_store(tmp_path / "two"))


def test_an_empty_store_is_refused(tmp_path: Path) -> None:
    with StoreWriter.open(tmp_path, make_meta(frame_size=(SIZE, SIZE))):
        pass
    with pytest.raises(InputError, match="episode"):
        ImaginedVectorEnv(tiny_world(), Store.open(tmp_path))


def test_by_name_only_a_shipped_world_has_starts_of_its_own(tmp_path: Path) -> None:
    tiny_world().save_pretrained(tmp_path / "world")
    for world in (tiny_world(), str(tmp_path / "world")):
        with pytest.raises(InputError, match="starts is missing: give the store that imagined episodes begin from"):
            gymnasium.make("vqvideo/Imagined-v0", world=world)
        with pytest.raises(InputError, match="starts is missing"):
            gymnasium.make_vec("vqvideo/Imagined-v0", num_envs=2, world=world)
    with pytest.raises(InputError, match="starts is missing"):
        gymnasium.make("vqvideo/Imagined-v0", world="carracin")
