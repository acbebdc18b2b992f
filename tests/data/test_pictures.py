"""Frames of arrays and encoded images: every layout gives the same picture, and what is ambiguous is refused."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vqvideo.data.formats import pictures
from vqvideo.data.formats.pictures import ArrayPictures, EncodedPictures, SideBySide, Sliced, chosen_cameras
from vqvideo.errors import InputError

FRAMES = np.random.default_rng(0).integers(0, 256, (7, 6, 8, 3), np.uint8)
GREY = FRAMES[..., :1].repeat(3, axis=-1)


def shown(array: np.ndarray) -> np.ndarray:
    return np.stack(list(ArrayPictures(Sliced(array), "x.npz: frames").frames()))


LAYOUTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]] = {
    "rgb": (lambda frames: frames, FRAMES),
    "channels first": (lambda frames: frames.transpose(0, 3, 1, 2), FRAMES),
    "grey": (lambda frames: frames[..., 0], GREY),
    "grey with a channel": (lambda frames: frames[..., :1], GREY),
    "grey with a channel first": (lambda frames: frames[..., 0][:, None], GREY),
    "opaque": (lambda frames: np.concatenate([frames, np.full_like(frames[..., :1], 255)], -1), FRAMES),
    "transparent": (
        lambda frames: np.concatenate([frames, np.zeros_like(frames[..., :1])], -1),
        np.full_like(FRAMES, 255),
    ),
    "floats": (lambda frames: frames.astype(np.float32) / 255, FRAMES),
    "whole numbers": (lambda frames: frames.astype(np.int64), FRAMES),
    "bools": (lambda frames: frames > 127, np.where(FRAMES > 127, 255, 0)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("block", [1, 300, 2**24])
def test_every_layout_shows_the_same(layout: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BLOCK_BYTES", block)
    made, expected = LAYOUTS[layout]
    array = made(FRAMES)
    assert np.array_equal(shown(array), expected)
    facts = ArrayPictures(Sliced(array, 2, 5), "x", fps=10).facts
    assert (facts.frames, facts.fps, facts.size) == (3, 10, (6, 8))


REFUSED: list[tuple[Any, str]] = [
    (np.zeros((7, 3, 8, 3), np.uint8), r"frames of shape \(3, 8, 3\), whose channels may be first or last"),
    (np.zeros((7, 2, 64, 64), np.uint8), r"shape \(7, 2, 64, 64\), expected .*several frames stacked"),
    (np.zeros((7, 4, 6, 8, 3), np.uint8), r"several frames stacked"),
    (np.zeros((7, 12)), r"shape \(7, 12\), expected \(n, h, w, 3\).*--columns frames=NAME"),
    (np.zeros((0, 6, 8, 3), np.uint8), "without frames"),
    (np.full((2, 6, 8, 3), 200.0), "frame 0: float64 from 200 to 200, expected 0 to 1"),
    (np.full((2, 6, 8, 3), -0.5), "float64 from -0.5 to -0.5, expected 0 to 1"),
    (np.full((2, 6, 8, 3), np.nan), "from nan to nan"),
    (np.full((2, 6, 8, 3), 5000, np.uint16), "uint16 from 5000 to 5000, expected 0 to 255"),
    (np.full((2, 6, 8, 3), "x"), "values of type <U1"),
]


@pytest.mark.parametrize(("array", "said"), REFUSED)
def test_what_may_be_no_picture_is_refused(array: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ArrayPictures(Sliced(array), "x.npz: frames")


def encoded(frame: np.ndarray, kind: str = "PNG") -> bytes:
    file = BytesIO()
    Image.fromarray(frame).save(file, kind)
    return file.getvalue()


def test_encoded_images_are_decoded_one_by_one() -> None:
    found = EncodedPictures([encoded(frame) for frame in FRAMES], len(FRAMES), "x", fps=5)
    assert np.array_equal(np.stack(list(found.frames())), FRAMES)
    assert (found.facts.frames, found.facts.size) == (7, (6, 8))
    assert next(EncodedPictures([encoded(FRAMES[0], "JPEG")], 1, "x").frames()).shape == (6, 8, 3)


def test_only_images_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b"junk", b"", encoded(FRAMES[0], "GIF")):
        with pytest.raises(InputError, match="x, frame 0: not an image that can be read"):
            EncodedPictures([content], 1, "x")
    with pytest.raises(InputError, match="x: no frames"):
        EncodedPictures([], 0, "x")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(InputError, match="x, frame 0: more than 20 pixels"):
        EncodedPictures([encoded(FRAMES[0])], 1, "x")


def test_cameras_stand_side_by_side_as_high_as_the_first() -> None:
    one, two = ArrayPictures(Sliced(FRAMES), "a", 10), ArrayPictures(Sliced(FRAMES[:, :5, :4]), "b")
    both = SideBySide([one, two], "x")
    assert (both.facts.size, both.facts.fps) == ((6, 13), 10)
    frames = list(both.frames())
    assert len(frames) == 7
    assert frames[0].shape == (6, 13, 3)
    assert np.array_equal(frames[3][:, :8], FRAMES[3])
    with pytest.raises(InputError, match=r"x: the cameras have \[7, 4\] frames"):
        SideBySide([one, ArrayPictures(Sliced(FRAMES, 0, 4), "b")], "x")


def test_cameras_are_chosen_by_name() -> None:
    found = ["observation.images.front", "observation.images.top"]
    assert chosen_cameras(found[:1], (), "x") == found[:1]
    assert chosen_cameras(found, ("top", found[0]), "x") == found[::-1]
    with pytest.raises(InputError, match=r"x: 2 cameras \(.*front, .*top\), expected one.*--cameras observation"):
        chosen_cameras(found, (), "x")
    with pytest.raises(InputError, match=r"x: no camera 'tap' \(--cameras\)"):
        chosen_cameras(found, ("tap",), "x")
    with pytest.raises(InputError, match="x: no pictures in it"):
        chosen_cameras([], (), "x")
