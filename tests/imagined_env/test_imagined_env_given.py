"""What users hand to a world and its environments: arrays of any kind and layout, seeds, numbers, starts, devices.

Each works as its plain form does, or is refused in words that help.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from imagined import dream, dreams, same, some_starts
from imagined import endless as new_world
from tiny_models import noise_frames, tiny_store

from vqvideo.data.clips import Clips, StartClips
from vqvideo.errors import InputError
from vqvideo.imagined_env import ImaginedVectorEnv, Starts
from vqvideo.world import WorldModel

endless = cache(new_world)
"""One world for all tests: none of them changes it."""
FRAMES = noise_frames(2, 3).numpy()
ACTIONS = np.array([0.0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]).reshape(2, 6, 1)


@pytest.fixture(autouse=True)
def quietly() -> Iterator[None]:
    """PyTorch's warnings of memory that cannot be written to are no answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def locked(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "backwards": lambda x: x[..., ::-1].copy()[..., ::-1],
    "backwards in time": lambda x: x[:, ::-1].copy()[:, ::-1],
    "read-only": locked,
    "in Fortran's order": np.asfortranarray,
    "every other": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "another order of bytes": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "a list of arrays": list,
    "a list of tensors": lambda x: [torch.from_numpy(part) for part in x],
    "a tensor": torch.from_numpy,
    "a tensor with a gradient": lambda x: torch.from_numpy(x).requires_grad_(x.dtype.kind == "f"),
}
DOORS: dict[str, Callable[[WorldModel, Any, Any], Any]] = {
    "imagine": lambda world, frames, actions: world.imagine(frames, actions, seed=0),
    "start": lambda world, frames, actions: world.start(frames, actions),
    "begin": lambda world, frames, actions: world.begin(frames, actions)[1],
    "step": lambda world, frames, actions: world.step(some_starts(world, 2).state, actions, generator=seeded())[0],
    "encode": lambda world, frames, actions: world.vqvae.encode(frames),
    "encode_step": lambda world, frames, actions: world.vqvae.encode_step(frames, world.vqvae.init_state(2))[0],
    "reset": lambda world, frames, actions: begun(world, frames, actions),
    "starts": lambda world, frames, actions: dreams(world, 2, starts=(frames, actions), context=2).reset(seed=0),
}
AS_SHOWN = ("reset", "starts")
"""Doors that take frames with channels last, as environments show them."""


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def begun(world: WorldModel, frames: Any, actions: Any) -> Any:
    envs = dreams(world, 2)
    envs.reset(seed=0, options={"frames": frames, "actions": actions})
    return envs.step(np.zeros(2, int))


def for_door(door: str, frames: np.ndarray = FRAMES) -> tuple[np.ndarray, np.ndarray]:
    """Frames and flat actions as the door takes them."""
    shown = np.ascontiguousarray(np.moveaxis(frames, 2, -1)) if door in AS_SHOWN else frames
    return shown, ACTIONS if door == "imagine" else ACTIONS[:, :2].copy()


def plain(result: Any) -> Any:
    """In types that can be compared."""
    return torch.utils._pytree.tree_leaves(result)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("door", DOORS)
def test_frames_and_actions_are_as_good_in_any_form_as_plain_arrays(door: str, form: str) -> None:
    world = endless()
    for frames, actions in (for_door(door), for_door(door, (FRAMES / 255).astype(np.float32))):
        expected = DOORS[door](world, frames, actions)
        assert same(plain(DOORS[door](world, FORMS[form](frames), FORMS[form](actions))), plain(expected))


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.longdouble])
@pytest.mark.parametrize("door", DOORS)
def test_frames_may_be_floats_of_any_width_and_actions_any_numbers(door: str, kind: type) -> None:
    world = endless()
    frames, actions = for_door(door, np.zeros_like(FRAMES))
    expected = plain(DOORS[door](world, frames, actions))
    for numbers in (actions.astype(kind), actions.astype(np.int8), actions.tolist()):
        assert same(plain(DOORS[door](world, frames.astype(kind), numbers)), expected)


NO_FRAMES: list[tuple[Any, str]] = [
    (None, "None"),
    ("film.mp4", r"found 'film.mp4'"),
    (FRAMES.astype(object), "type object"),
    (FRAMES.astype(complex), "type complex128"),
    (FRAMES.astype(np.int64), r"frames of type torch.int64, .* convert them, an array by frames.astype\('uint8'\)"),
    (FRAMES.tolist(), "frames of type torch.int64"),
    (FRAMES > 9, "frames of type torch.bool"),
    ([FRAMES[0], FRAMES[1, :1]], "inhomogeneous"),
    ([torch.zeros(1), torch.zeros(2)], "stack expects each tensor to be equal size"),
    ((part for part in FRAMES), "found <generator"),
    (FRAMES[0], r"shape \(3, 3, 16, 16\), expected \(b, t, 3, 16, 16\): frames\[None\] makes a batch of one clip"),
    (np.moveaxis(FRAMES, 2, -1), r"np.moveaxis\(frames, -1, -3\) moves them"),
    (FRAMES.astype(float), r"float frames from 0 to 255, expected 0..1 \(or uint8 in 0..255\)"),
    (3, "expected"),
]  # fmt: skip


@pytest.mark.parametrize(("frames", "message"), NO_FRAMES)
@pytest.mark.parametrize("door", ["imagine", "start", "encode", "encode_step"])
def test_what_are_no_frames_is_said(door: str, frames: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DOORS[door](endless(), frames, for_door(door)[1])


@pytest.mark.parametrize("frames", [None, "film.mp4", FRAMES.astype(object), (x for x in FRAMES), FRAMES[..., :8], 3])
@pytest.mark.parametrize("door", AS_SHOWN)
def test_environments_say_it_too(door: str, frames: Any) -> None:
    with pytest.raises(InputError, match=r"(starts|options\['frames'\]).*expected"):
        DOORS[door](endless(), frames, ACTIONS[:, :2])


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ("left", "found 'left'"),
        ([[[0]], [[0], [1]]], "inhomogeneous"),
        (ACTIONS.astype(complex), "type complex128"),
        ([[[10**400]] * 6] * 2, "type object"),
        (ACTIONS[..., 0], r"actions"),
        ({"gear": 1}, "found {'gear': 1}"),
    ],
)
@pytest.mark.parametrize("door", ["imagine", "start", "step", "reset", "starts"])
def test_what_are_no_actions_is_said(door: str, actions: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DOORS[door](endless(), for_door(door)[0], actions)


@pytest.mark.parametrize("form", [name for name in FORMS if "gradient" not in name])
def test_an_environment_takes_actions_in_any_form(form: str) -> None:
    one, two = dreams(endless()), dreams(endless())
    one.reset(seed=0)
    two.reset(seed=0)
    actions = np.array([[1, 4, 0]])
    given = FORMS[form](actions)[0]
    assert same(one.step(given), two.step(actions[0]))


def test_a_mask_of_a_reset_may_be_read_only_and_run_backwards() -> None:
    envs = dreams(autoreset_mode="Disabled")
    envs.reset(seed=0)
    for mask in (np.array([True, False, False])[::-1], locked(np.array([False, False, True]))):
        assert envs.reset(options={"reset_mask": mask})[1]["_start"].tolist() == [False, False, True]


# ---------------------------------------------------------------- seeds

SEVENS = [np.dtype(kind).type(7) for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")]
RESETS: dict[str, Callable[[Any], Any]] = {
    "imagine": lambda seed: plain(endless().imagine(FRAMES, ACTIONS, seed=seed)),
    "batch": lambda seed: begun_with(seed),
    "list": lambda seed: begun_with([seed, seed, seed]),
    "single": lambda seed: dream(endless(), starts=some_starts(endless(), 99)).reset(seed=seed),
}


def begun_with(seed: Any) -> Any:
    return dreams(endless(), starts=some_starts(endless(), 99)).reset(seed=seed)


@pytest.mark.parametrize("door", RESETS)
@pytest.mark.parametrize("seed", [*SEVENS, np.array(7), torch.tensor(7)], ids=repr)
def test_a_whole_number_of_any_kind_is_that_seed(door: str, seed: Any) -> None:
    assert same(RESETS[door](seed), RESETS[door](7))


@pytest.mark.parametrize("door", RESETS)
def test_seeds_are_of_64_bits(door: str) -> None:
    found = [RESETS[door](seed) for seed in (0, 2**31, 2**32, 2**63, 2**64 - 1, np.uint64(2**64 - 1))]
    assert same(found[-1], found[-2])
    assert not same(found[0], found[-1])


@pytest.mark.parametrize("door", RESETS)
@pytest.mark.parametrize("seed", [7.0, np.float32(7), math.nan, "7", True, np.True_, 2**64, -(2**63) - 1, object()])
def test_what_is_no_seed_is_said(door: str, seed: Any) -> None:
    with pytest.raises(InputError, match=r"seeds?(\[0\])? is .*, expected (a whole number of at least|at most 184467)"):
        RESETS[door](seed)


@pytest.mark.parametrize("door", ["batch", "list", "single"])
def test_environments_take_no_negative_seeds(door: str) -> None:
    with pytest.raises(InputError, match="is -1, expected a whole number of at least 0"):
        RESETS[door](-1)


def test_a_dream_takes_negative_seeds_as_pytorch_does() -> None:
    assert same(RESETS["imagine"](-1), RESETS["imagine"](-1))


@pytest.mark.parametrize("seeds", [(3, 4, 5), np.array([3, 4, 5]), torch.tensor([3, 4, 5]), range(3, 6)], ids=repr)
def test_a_row_of_seeds_of_any_kind_is_one_for_each_env(seeds: Any) -> None:
    assert same(begun_with(seeds), begun_with(3))


# ---------------------------------------------------------------- numbers and other settings


@pytest.mark.parametrize("setting", ["num_envs", "horizon", "context", "max_starts"])
@pytest.mark.parametrize("value", [np.int8(2), np.uint64(2), np.array(2), torch.tensor(2)], ids=repr)
def test_a_setting_may_be_a_whole_number_of_any_kind(setting: str, value: Any) -> None:
    clips = StartClips(noise_frames(4, 5), torch.zeros(4, 4, 1), torch.zeros(4, 4))
    envs, plain_ones = (ImaginedVectorEnv(endless(), clips, **{setting: number}) for number in (value, 2))
    assert same(envs.reset(seed=0), plain_ones.reset(seed=0))
    assert type(envs.num_envs) is int
    for _ in range(2):
        last, expected = (one.step(np.zeros(one.num_envs, int)) for one in (envs, plain_ones))
        assert same(last, expected)


@pytest.mark.parametrize("setting", ["num_envs", "horizon", "context", "max_starts"])
@pytest.mark.parametrize("value", ["50", 2.0, 2.5, None, 0, -1, True, math.nan, [2]])
def test_what_is_no_whole_number_is_said(setting: str, value: Any) -> None:
    clips = StartClips(noise_frames(4, 5), torch.zeros(4, 4, 1), torch.zeros(4, 4))
    with pytest.raises(InputError, match=rf"{setting} is .*, expected a whole number of at least 1"):
        ImaginedVectorEnv(endless(), clips, **{setting: value})


def test_a_horizon_may_be_endless() -> None:
    envs = dreams(endless(), horizon=math.inf)
    envs.reset(seed=0)
    assert not any(envs.step(np.zeros(3, int))[3].any() for _ in range(8))


@pytest.mark.parametrize("sampling", [{"temperature": 1.0}, "cold", 0.5])
def test_what_does_not_say_how_to_draw_is_refused(sampling: Any) -> None:
    for refused in (lambda: dreams(sampling=sampling), lambda: endless().imagine(FRAMES, ACTIONS, sampling=sampling)):
        with pytest.raises(InputError, match=r"sampling is .*, expected how to draw, such as vqvideo\.Sampling\("):
            refused()


@pytest.mark.parametrize("reward", [1.0, "own", np.zeros(3)], ids=repr)
def test_a_reward_that_is_no_function_is_refused(reward: Any) -> None:
    with pytest.raises(InputError, match=r"reward is .*, expected a function of a WorldStep"):
        dreams(reward=reward)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "", ["cpu"], 99])
@pytest.mark.parametrize("loaded", [False, True])
def test_a_device_that_is_not_there_is_named(device: Any, loaded: bool, tmp_path: Path) -> None:
    world = endless()
    world.save_pretrained(tmp_path)
    named, starts = world if loaded else str(tmp_path), some_starts(world)
    with pytest.raises(InputError, match=r"device is .* Expected one of this machine, such as 'cpu'"):
        gymnasium.make("vqvideo/Imagined-v0", world=named, starts=starts, device=device)
    for good in ("cpu", torch.device("cpu")):
        gymnasium.make("vqvideo/Imagined-v0", world=named, starts=starts, device=good).reset(seed=0)


# ---------------------------------------------------------------- starts


@pytest.mark.parametrize("context", [1, 2])
def test_a_pair_of_frames_and_actions_is_where_dreams_begin(context: int) -> None:
    """Also as tensors, channels first, and in a list; the first frames of each are the context."""
    frames, actions = noise_frames(4, 5), torch.tensor([0.0, 1, 2, 3]).expand(4, 4)[..., None]
    shown = frames.movedim(2, -1).numpy()
    pairs: list[Any] = [(shown, actions.numpy()), (frames, actions), [shown, actions.tolist()]]
    world, clips = endless(), StartClips(frames, actions, torch.zeros(4, 4))
    expected = ImaginedVectorEnv(world, clips, 3, context=context).reset(seed=0)
    for pair in pairs:
        assert same(ImaginedVectorEnv(world, pair, 3, context=context).reset(seed=0), expected)
    if context == 1:
        assert same(ImaginedVectorEnv(world, shown, 3).reset(seed=0), expected)


def test_clips_of_a_store_are_where_dreams_begin(tmp_path: Path) -> None:
    store = tiny_store(tmp_path)
    one, two = (ImaginedVectorEnv(endless(), starts, 3) for starts in (store, Clips(store, "train", 2)))
    assert same(one.reset(seed=0), two.reset(seed=0))
    with pytest.raises(InputError, match="clips of 2 frames, expected at least 3 for a context of 2 latent steps"):
        ImaginedVectorEnv(endless(), Clips(store, "train", 2), context=2)


def no_starts() -> Starts:
    return Starts.read(endless(), noise_frames(0, 1), torch.zeros(0, 0, 1))


SHOWN = np.moveaxis(noise_frames(4, 5).numpy(), 2, -1)


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        (lambda: None, "found None .* expected a store, its folder, clips, or frames"),
        (lambda: 3, r"starts of shape \(\), expected a store"),
        (lambda: [], r"starts of shape \(0,\), expected a store"),
        (lambda: (frame for frame in SHOWN), "found <generator .*expected a store"),
        (lambda: "data/nowhere", "no episodes in data/nowhere. Record some"),
        (lambda: Path("data/nowhere"), "no episodes in data/nowhere. Record some"),
        (lambda: SHOWN, r"actions between the 3 frames of a context are missing: starts=\(frames, actions\)"),
        (lambda: (SHOWN, ACTIONS), r"actions of shape \(2, 6, 1\), expected \(r, t, 3, h, w\) and \(r, t - 1, 1\)"),
        (lambda: (SHOWN[:, :1], np.zeros((4, 0, 1))), "with t >= 3: longer clips, or a shorter context"),
        (lambda: (SHOWN[:0], np.zeros((0, 4, 1))), "starts are empty, expected at least one clip"),
        (lambda: StartClips(noise_frames(0, 5), torch.zeros(0, 4, 1), torch.zeros(0, 4)), "starts are empty"),
        (no_starts, "starts are empty"),
    ],
)
def test_what_dreams_cannot_begin_from_is_said(starts: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImaginedVectorEnv(endless(), starts(), context=2)
