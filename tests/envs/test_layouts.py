"""Frames of environments: which picture is taken, and how it is read in every layout that occurs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation
from stub_envs import Observes

from vqvideo import envs
from vqvideo.data.config import RecordConfig
from vqvideo.data.store import Store
from vqvideo.envs.pixels import PixelFrames, choose
from vqvideo.envs.recording import record
from vqvideo.errors import InputError


def box(shape: tuple[int, ...], dtype: Any = np.uint8, high: float = 255, low: float = 0) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)


CAMERA, SENSOR = box((20, 30, 3)), box((4,), np.float32)
REGISTERED = {
    "one picture": spaces.Dict(rgb=CAMERA, speed=SENSOR),
    "two pictures": spaces.Dict(arm=spaces.Dict(camera=CAMERA), rgb=CAMERA),
    "picture": CAMERA,
    "floats": box((20, 30, 3), np.float32, 1.0),
    "matrix": box((20, 30), np.float32, 1.0),
    "numbers": SENSOR,
}


@pytest.fixture
def registered() -> Iterator[Callable[[str], str]]:
    """Registers the environment that observes a space, and returns its id."""
    made = []

    def register(kind: str) -> str:
        made.append(f"stub/{kind.title().replace(' ', '')}-v0")
        gymnasium.register(made[-1], entry_point=partial(Observes, REGISTERED[kind]))
        return made[-1]

    yield register
    for name in made:
        del gymnasium.registry[name]


# ---------------------------------------------------------------- layouts

LAYOUTS: dict[str, tuple[spaces.Box, Callable[[np.ndarray], np.ndarray]]] = {
    "colour": (box((20, 30, 3)), lambda a: a),
    "gray": (box((20, 30)), lambda a: a[:, :, None]),
    "gray with an axis": (box((20, 30, 1)), lambda a: a),
    "channels first": (box((3, 20, 30)), lambda a: a.transpose(1, 2, 0)),
    "gray, channels first": (box((1, 20, 30)), lambda a: a.transpose(1, 2, 0)),
    "transparency": (box((20, 30, 4)), lambda a: a[:, :, :3]),
    "floats to 1": (box((20, 30, 3), np.float32, 1.0), lambda a: np.rint(a * 255)),
    "floats to 255": (box((20, 30, 3), np.float64), lambda a: np.rint(a)),
    "integers": (box((20, 30, 3), np.int64), lambda a: a),
    "floats, channels first": (box((3, 20, 30), np.float32, 1.0), lambda a: np.rint(a * 255).transpose(1, 2, 0)),
    "stacked frames": (box((4, 20, 30, 3)), lambda a: a[-1]),
    "stacked frames, channels first": (box((4, 3, 20, 30)), lambda a: a[-1].transpose(1, 2, 0)),
    "stacked gray frames": (box((4, 20, 30)), lambda a: a[-1][:, :, None]),
    "stacked channels": (box((20, 30, 12)), lambda a: a[:, :, -3:]),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_pictures_of_every_layout_become_the_same_frames(kind: str) -> None:
    space, expected = LAYOUTS[kind]
    env = PixelFrames(stub := Observes(space))
    for show in (partial(env.reset, seed=3), partial(env.step, 0)):
        frame = show()[0]
        assert frame.shape == env.observation_space.shape == (20, 30, 3)
        assert frame.dtype == np.uint8
        assert np.ptp(frame) > 100
        np.testing.assert_array_equal(frame, np.broadcast_to(expected(stub.seen), frame.shape))
    rare = any(word in kind for word in ("stacked", "transparency"))
    assert bool(env.source.note) == rare


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (3, 20, 30)])
@pytest.mark.parametrize("frames", [1, 3, 4, 20])
def test_a_stack_is_known_by_its_wrapper_and_its_last_frame_is_taken(shape: tuple[int, ...], frames: int) -> None:
    stub = Observes(box(shape))
    env = PixelFrames(FrameStackObservation(stub, frames))
    env.reset(seed=0)
    frame = env.step(0)[0]
    plain = PixelFrames(Observes(box(shape)))
    plain.reset(seed=0)
    np.testing.assert_array_equal(frame, plain.step(0)[0])


@pytest.mark.parametrize(
    "space, problem",
    [
        (box((20, 30, 3), np.float32, np.inf), "float32, whose range"),
        (box((20, 30, 3), np.float32, 1, -1), "float32, whose range"),
        (box((20, 30, 3), np.uint16, 65535), "uint16, whose range"),
        (box((9, 20, 30)), "9 gray frames or 3 in colour"),
    ],
)
def test_pixels_that_would_need_guessing_are_refused(space: spaces.Box, problem: str) -> None:
    with pytest.raises(InputError, match=rf"Observes observes .*{problem}.*--pixels render"):
        PixelFrames(Observes(space))
    assert PixelFrames(Observes(space), "render").observation_space.shape == (17, 17, 3)


@pytest.mark.parametrize("space", [box((7, 7, 3)), box((19, 19, 6), np.uint8, 1), box((4, 20, 30), np.float32, 9)])
def test_planes_of_features_are_no_pictures(space: spaces.Box) -> None:
    assert choose(Observes(space)).name == "render"


@pytest.mark.parametrize(
    "space, given, problem",
    [
        (CAMERA, np.zeros((20, 30, 3), np.float32), "a frame of float32"),
        (CAMERA, [[[1, 2, 3]]], "a frame of list"),
        (CAMERA, np.zeros((20, 30, 4), np.uint8), r"a frame of shape \(20, 30, 4\)"),
        (CAMERA, np.zeros((20, 30), np.uint8), r"a frame of shape \(20, 30\)"),
        (box((20, 30, 3), np.float32, 1), np.full((20, 30, 3), 200.0), "a frame from 200 to 200; its space has 0 to 1"),
        (box((20, 30, 3), np.float32, 1), np.full((20, 30, 3), np.nan), "a frame from nan"),
        (box((20, 30, 3), np.int64), np.full((20, 30, 3), 300), "a frame from 300"),
    ],
)
def test_a_frame_that_is_not_of_its_space_is_refused(space: spaces.Box, given: Any, problem: str) -> None:
    stub = Observes(space)
    env = PixelFrames(stub)
    stub.frame = lambda: given  # type: ignore[method-assign]
    with pytest.raises(InputError, match=problem):
        env.reset()


# ---------------------------------------------------------------- what is rendered


@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_gray_and_transparency_are_rendered_too(channels: tuple[int, ...]) -> None:
    stub = Observes(SENSOR)
    picture = np.random.default_rng(0).integers(256, size=(18, 20, *channels), dtype=np.uint8)
    stub.render = lambda: picture  # type: ignore[method-assign]
    frame, _ = PixelFrames(stub).reset(seed=0)
    colours = picture[:, :, :3] if len(channels) else picture[:, :, None]
    np.testing.assert_array_equal(frame, np.broadcast_to(colours, (18, 20, 3)))


@pytest.mark.parametrize(
    "picture, problem",
    [
        (None, "NoneType.*render_mode='rgb_array'"),
        ([np.zeros((20, 20, 3), np.uint8)], "list.*rgb_array_list"),
        (np.zeros((9, 9, 3), np.float32), "float32"),
        (np.zeros((9,), np.uint8), r"shape \(9,\)"),
    ],
)
def test_a_render_that_is_no_frame_is_refused(picture: Any, problem: str) -> None:
    env = Observes(SENSOR)
    env.render = lambda: picture  # type: ignore[method-assign]
    with pytest.raises(InputError, match=rf"render\(\) of Observes gave a frame of {problem}"):
        PixelFrames(env)


def test_an_environment_that_shows_nothing_is_refused() -> None:
    gymnasium.register("stub/Invisible-v0", entry_point="stub_envs:Invisible")
    try:
        with pytest.raises(InputError, match=r"no picture, and cannot draw one.*'rgb_array' is needed"):
            envs.make(envs.resolve("stub/Invisible-v0"))
    finally:
        del gymnasium.registry["stub/Invisible-v0"]


# ---------------------------------------------------------------- which picture


@pytest.mark.parametrize(
    ("kind", "asked", "name", "note"),
    [
        ("picture", None, "observation", ""),
        ("picture", "observation", "observation", ""),
        ("picture", "render", "render", ""),
        ("numbers", None, "render", ""),
        ("one picture", None, "rgb", "the observation 'rgb'; --pixels render"),
        ("one picture", "observation", "rgb", ""),
        ("one picture", "rgb", "rgb", ""),
        ("one picture", "render", "render", ""),
        ("two pictures", "arm/camera", "arm/camera", ""),
        ("matrix", None, "render", "--pixels observation"),
        ("matrix", "observation", "observation", ""),
    ],
)
def test_the_picture_that_is_asked_for_is_taken_and_a_choice_is_told(
    registered: Callable[[str], str], kind: str, asked: str | None, name: str, note: str
) -> None:
    env = envs.make(envs.Preset(registered(kind), pixels=asked))
    assert env.source.name == name
    assert note in env.source.note
    assert bool(note) == bool(env.source.note)
    size = 17 if name == "render" else 20
    assert env.reset(seed=0)[0].shape[0] == size


def test_pictures_of_tuples_are_named_by_their_place() -> None:
    env = PixelFrames(Observes(spaces.Tuple([SENSOR, CAMERA])))
    assert env.source.name == "1"
    assert env.reset(seed=0)[0].shape == (20, 30, 3)


@pytest.mark.parametrize(
    ("kind", "asked", "message"),
    [
        ("two pictures", None, "observes 2 pictures: choose one with --pixels arm/camera or rgb"),
        ("two pictures", "observation", "--pixels takes arm/camera, rgb or render"),
        ("one picture", "rbg", "no observation 'rbg': --pixels takes rgb, speed or render"),
        ("one picture", "speed", "'speed' of .* is no picture"),
        ("picture", "rgb", "it has no keys"),
        ("numbers", "observation", "is no picture"),
    ],
)
def test_a_choice_that_cannot_be_made_names_what_can(
    registered: Callable[[str], str], kind: str, asked: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        envs.make(envs.Preset(registered(kind), pixels=asked))


@pytest.mark.parametrize(
    ("kind", "asked", "kept"),
    [
        ("picture", None, None),
        ("picture", "render", "render"),
        ("one picture", None, "rgb"),
        ("one picture", "render", None),
        ("two pictures", "arm/camera", "arm/camera"),
        ("floats", None, "observation"),
        ("matrix", None, None),
        ("numbers", None, None),
    ],
)
def test_the_real_environment_of_a_store_shows_what_was_recorded(
    registered: Callable[[str], str], tmp_path: Path, kind: str, asked: str | None, kept: str | None
) -> None:
    options = RecordConfig(
        env=registered(kind), pixels=asked, out=tmp_path, episodes=1, steps=2, workers=0, frame_size="17x17"
    )
    store = Store.open(record(options))
    assert store.meta.pixels == kept
    env = envs.as_recorded(store.meta)
    entry = store.entries[0]
    frame, _ = env.reset(seed=entry.seed)
    np.testing.assert_array_equal(frame, store.episode(entry).frames[0])


def test_a_store_does_not_go_on_with_other_pixels(registered: Callable[[str], str], tmp_path: Path) -> None:
    one = RecordConfig(env=registered("picture"), out=tmp_path, episodes=1, steps=2, workers=0)
    record(one)
    with pytest.raises(InputError, match="pixels: None -> render"):
        record(RecordConfig(**{**vars(one), "pixels": "render"}))


def test_notes_are_printed_once_and_only_when_something_is_recorded(
    registered: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = RecordConfig(env=registered("one picture"), out=tmp_path, episodes=2, steps=2, workers=0, frame_size=16)
    record(options)
    shown = capsys.readouterr().out
    assert shown.count("note: the frames are the observation 'rgb'") == shown.count("squashed") == 1
    record(options)
    assert "note:" not in capsys.readouterr().out
