"""Video files, contact sheets."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import SIZE, noise_frames, tiny_vqvae, tiny_world
from videos import read_video

from vqvideo.errors import InputError
from vqvideo.evaluation.pictures import (
    DREAMT,
    LABEL_WIDTH,
    as_numpy,
    clips_on_page,
    contact_sheet,
    dream_rows,
    film,
    joined,
    reconstruction_rows,
    resized,
    save_media,
    shown_size,
    what_if_rows,
    write_mp4,
    write_png,
)
from vqvideo.models.prior import Sampling
from vqvideo.storage.files import DiskError


class Refusing:
    """In place of `av.open`: containers whose encoder raises `error`."""

    def __init__(self, opened: Callable[..., Any], error: Exception) -> None:
        self.opened, self.error = opened, error

    def __call__(self, *args: Any, **options: Any) -> Refusing:
        self.container = self.opened(*args, **options)
        return self

    def __enter__(self) -> Refusing:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def add_stream(self, *_: Any, **__: Any) -> None:
        raise self.error


def colour_clip(frames: int, height: int, width: int) -> np.ndarray:
    """Plain halves whose colours differ from frame to frame."""
    clip = np.zeros((frames, height, width, 3), np.uint8)
    for t in range(frames):
        clip[t, :, : width // 2] = (30 + 40 * t, 200 - 30 * t, 60)
        clip[t, :, width // 2 :] = (220, 20 + 30 * t, 240 - 40 * t)
    return clip


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("size", "expected"),
    [((64, 96), (64, 96)), ((15, 17), (16, 18)), ((60, 68), (60, 68)), ((15, 22), (16, 22))],
)
def test_a_written_video_reads_back(tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    shown = colour_clip(5, *size)
    write_mp4(tmp_path / "new" / "clip.mp4", shown, fps=10)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["clip.mp4"]
    found = read_video(tmp_path / "new" / "clip.mp4")
    assert found.shape == (5, *expected, 3)
    assert found.dtype == np.uint8
    h, w = shown.shape[1:3]
    error = np.abs(found[:, :h, :w].astype(int) - shown.astype(int))
    inner = np.r_[1 : w // 2 - 3, w // 2 + 3 : w - 1]
    assert error[:, :, inner].max() <= 6
    assert error[:, :, inner].mean() <= 3


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("fps", [0.001, 0.1, 0.5, 10, 12.5, 29.97, 30000 / 1001, 50, 240, 1000])
def test_a_video_lasts_as_long_as_its_frame_rate_says(tmp_path: Path, fps: float, frames: int) -> None:
    write_mp4(tmp_path / "clip.mp4", colour_clip(frames, 8, 8), fps=fps)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == pytest.approx(fps, rel=1e-3)
        assert stream.frames == frames
        assert stream.codec_context.pix_fmt == "yuv420p"


@pytest.mark.parametrize(("fps", "kept"), [(1e-9, 0.001), (2.0**31, 1000), (1e300, 1000)])
def test_a_frame_rate_that_no_player_knows_is_brought_near(tmp_path: Path, fps: float, kept: float) -> None:
    write_mp4(tmp_path / "clip.mp4", colour_clip(2, 8, 8), fps=fps)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(kept)


def test_frames_are_encoded_as_they_come(tmp_path: Path) -> None:
    clip = np.zeros((120, 16, 16, 3), np.uint8)
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def one_by_one() -> Iterator[np.ndarray]:
        nonlocal most
        for frame in clip:
            made = frame.copy()
            alive.append(weakref.ref(made))
            most = max(most, sum(ref() is not None for ref in alive))
            yield made
            del made

    write_mp4(tmp_path / "clip.mp4", one_by_one(), fps=10)
    assert len(read_video(tmp_path / "clip.mp4")) == 120
    assert most <= 4, "frames in memory at once"


@pytest.mark.parametrize("size", [(4, 16386), (16386, 4)])
def test_a_video_beyond_the_encoder_is_an_error_that_says_what_to_do(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"clip\.mp4: .* pixels, a video has at most 16384 on a side: show fewer"):
        write_mp4(tmp_path / "clip.mp4", np.zeros((2, *size, 3), np.uint8), fps=10)
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_refuses_or_is_missing_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = colour_clip(2, 8, 8)
    failing = (av.error.ExternalError(542398533, "Generic error"), av.codec.codec.UnknownCodecError("libx264"))
    for error in failing:
        monkeypatch.setattr(av, "open", Refusing(av.open, error))
        with pytest.raises(InputError, match=r"clip\.mp4: no video of 8 x 8 pixels at 10 .*pip install .* av"):
            write_mp4(tmp_path / "clip.mp4", clip, fps=10)
        monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"PyAV cannot be loaded .*pip install .* av"):
        write_mp4(tmp_path / "clip.mp4", clip, fps=10)
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_breaks_off_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_mp4(path, np.zeros((2, 8, 8, 3), np.uint8), fps=10)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="dtype"):
        write_mp4(path, np.zeros((2, 8, 8, 3)), fps=10)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
    assert path.read_bytes() == before


def test_a_picture_that_cannot_be_written_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match=r"file: cannot be written"):
        write_png(tmp_path / "file" / "picture.png", np.zeros((2, 2, 3), np.uint8))


def test_a_written_picture_reads_back_exactly(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_png(tmp_path / "new" / "image.png", image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "image.png")), image)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["image.png"]


# ---------------------------------------------------------------- sheets


def test_a_frame_that_grows_repeats_pixels_and_one_that_shrinks_is_averaged() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    large = resized(frame, (9, 12))
    assert np.array_equal(large, frame.repeat(3, axis=0).repeat(3, axis=1))
    assert np.array_equal(resized(large, (3, 4)), frame)
    chequered = np.indices((8, 8)).sum(axis=0)[..., None].repeat(3, axis=2) % 2 * np.uint8(200)
    assert (resized(chequered.astype(np.uint8), (4, 4)) == 100).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), (256, 256)),
        ((16, 16), (256, 256)),
        ((64, 64), (256, 256)),
        ((84, 84), (252, 252)),
        ((120, 160), (240, 320)),
        ((210, 160), (210, 160)),
        ((256, 256), (256, 256)),
        ((400, 400), (400, 400)),
        ((1024, 1024), (454, 454)),
        ((2048, 1024), (719, 359)),
        ((64, 4096), (7, 454)),
    ],
)
def test_small_frames_are_enlarged_by_whole_factors_and_large_ones_shrunk_to_fit(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert shown_size(size, 256, (719, 454)) == expected


@pytest.mark.parametrize("side", [1, 7, 16, 64, 85, 128, 256, 300, 512, 1024])
@pytest.mark.parametrize("clips", [1, 4, 7, 21])
def test_a_video_of_any_frames_and_clips_fits_a_screen(side: int, clips: int) -> None:
    clip = [np.zeros((2, side, side, 3), np.uint8)] * 3
    first = next(film([clip] * clips))
    assert first.shape[0] <= 2160
    assert first.shape[1] <= 1920
    on_page = clips_on_page((side, side))
    assert on_page >= 4
    if clips <= on_page and side <= 256:
        assert first.shape[0] > 3 * 160, "small frames can be seen"


@pytest.mark.parametrize("size", [(8, 8), (64, 64), (33, 47), (256, 256), (900, 40)])
@pytest.mark.parametrize("clips", [1, 4, 63])
def test_a_contact_sheet_of_any_frames_and_clips_stays_a_picture(size: tuple[int, int], clips: int) -> None:
    h, w, _ = contact_sheet([[np.zeros((5, *size, 3), np.uint8)] * 2] * clips, columns=12).shape
    assert w <= 2560
    assert h <= 8192 + 6 * clips


def test_a_contact_sheet_spreads_its_frames_from_first_to_last() -> None:
    clip = np.zeros((9, 64, 32, 3), np.uint8)
    clip[:] = 10 * np.arange(9)[:, None, None, None]
    sheet = contact_sheet([[clip]], columns=3)
    assert sheet.shape == (128, LABEL_WIDTH + 3 * 64 + 2 * 2, 3)
    assert sheet.dtype == np.uint8
    row = sheet[0, LABEL_WIDTH:, 0]
    assert [set(row[i : i + 64].tolist()) for i in (0, 66, 132)] == [{0}, {40}, {80}]
    assert set(row[64:66].tolist()) == set(row[130:132].tolist()) == {255}


@pytest.mark.parametrize(("frames", "columns", "tiles"), [(2, 5, 2), (1, 3, 1), (5, 1, 1), (4, 4, 4)])
def test_a_contact_sheet_has_no_more_tiles_than_frames(frames: int, columns: int, tiles: int) -> None:
    sheet = contact_sheet([[colour_clip(frames, 64, 64)] * 2], columns)
    assert sheet.shape == (2 * 128 + 1, LABEL_WIDTH + 128 * tiles + 2 * (tiles - 1), 3)


def test_pictures_are_put_above_and_beside_each_other_with_white_lines() -> None:
    a, b = np.full((4, 6, 3), 10, np.uint8), np.full((4, 6, 3), 20, np.uint8)
    rows, columns = joined([a, b], axis=0), joined([a, b], axis=1, gap=3)
    assert rows.shape == (9, 6, 3)
    assert columns.shape == (4, 15, 3)
    assert rows[:, 0, 0].tolist() == [10] * 4 + [255] + [20] * 4
    assert columns[0, :, 0].tolist() == [10] * 6 + [255] * 3 + [20] * 6
    assert np.array_equal(joined([a], axis=0), a)


# ---------------------------------------------------------------- clips


@pytest.mark.parametrize("length", [1, 3, 9, 41])
def test_rows_of_clips_of_any_length_are_what_the_tokenizer_makes_of_them(length: int) -> None:
    vqvae, frames = tiny_vqvae(), noise_frames(2, length)
    rebuilt = as_numpy(vqvae.decode(vqvae.encode(frames)))
    for clip, (real, row) in enumerate(reconstruction_rows(vqvae, frames)):
        assert np.array_equal(real, as_numpy(frames)[clip])
        assert np.array_equal(row, rebuilt[clip])


def test_the_line_of_a_dream_is_as_thick_at_any_size(tmp_path: Path) -> None:
    world, frames = tiny_world(), noise_frames(1, 9)
    ((real, _, imagined),) = dream_rows(world, frames, torch.zeros(1, 8, 1), 3, Sampling(), 0)
    assert real.shape == imagined.shape == (9, SIZE, SIZE, 3)
    dreamt = [bool((frame[:1] == DREAMT).all()) for frame in imagined]
    assert dreamt == [False] * 5 + [True] * 4
    picture, video = save_media(tmp_path / "dream", [[real, real, imagined]], 10.0)
    assert video
    last = read_video(video)[-1]
    assert last.shape == (3 * 256 + 2, LABEL_WIDTH + 256, 3)
    assert np.abs(last[2 * 257 : 2 * 257 + 16, LABEL_WIDTH + 2 :].astype(int) - DREAMT).mean() < 10
    assert np.asarray(Image.open(picture)).shape == (3 * 128 + 2, LABEL_WIDTH + 9 * 128 + 8 * 2, 3)


def test_what_if_rows_share_their_context_and_differ_by_the_action_alone() -> None:
    world, frames = tiny_world(), noise_frames(2, 9)
    choices = [torch.full((2, 8, 1), value) for value in (0.0, 0.0, 1.0)]
    for clip, (real, *imagined) in enumerate(what_if_rows(world, frames, choices, 3, Sampling(), 0)):
        assert np.array_equal(real, as_numpy(frames)[clip])
        one, same, other = imagined
        assert np.array_equal(one, same), "the same noise"
        assert np.array_equal(one[:5], other[:5])
        assert (one[5:] != other[5:]).any()


def test_rows_bear_the_names_that_they_are_given() -> None:
    clips = [[colour_clip(2, 64, 64)] * 2]
    named, plain = contact_sheet(clips, 2, ("real", "left")), contact_sheet(clips, 2)
    half = len(named) // 2
    assert np.array_equal(named[:half], plain[:half])
    assert (named[half + 1 :] != plain[half + 1 :]).any()
