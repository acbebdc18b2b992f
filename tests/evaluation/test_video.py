"""Video files, contact sheets."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from videos import read_video

from vqvideo.evaluation.pictures import contact_sheet, joined, upscale, write_mp4, write_png
from vqvideo.storage.files import DiskError


def colour_clip(frames: int, height: int, width: int) -> np.ndarray:
    """Plain halves whose colours differ from frame to frame."""
    clip = np.zeros((frames, height, width, 3), np.uint8)
    for t in range(frames):
        clip[t, :, : width // 2] = (30 + 40 * t, 200 - 30 * t, 60)
        clip[t, :, width // 2 :] = (220, 20 + 30 * t, 240 - 40 * t)
    return clip


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [((16, 24), 4, (64, 96)), ((15, 17), 1, (16, 18)), ((15, 17), 4, (60, 68)), ((5, 7), 3, (16, 22))],
)
def test_a_written_video_reads_back(
    tmp_path: Path, size: tuple[int, int], scale: int, expected: tuple[int, int]
) -> None:
    clip = colour_clip(5, *size)
    shown = upscale(clip, scale)
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


@pytest.mark.parametrize("fps", [10, 50, 12.5, 30000 / 1001, 0.5])
def test_a_video_lasts_as_long_as_its_frame_rate_says(tmp_path: Path, fps: float) -> None:
    write_mp4(tmp_path / "clip.mp4", colour_clip(4, 8, 8), fps=fps)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == pytest.approx(fps, rel=1e-3)
        assert stream.codec_context.pix_fmt == "yuv420p"


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


def test_upscaling_repeats_pixels() -> None:
    clip = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), dtype=np.uint8)
    large = upscale(clip, 3)
    assert large.shape == (2, 9, 12, 3)
    for offset in range(3):
        assert np.array_equal(large[:, offset::3, offset::3], clip)


def test_a_contact_sheet_spreads_its_frames_from_first_to_last() -> None:
    clip = np.zeros((9, 4, 6, 3), np.uint8)
    clip[:] = 10 * np.arange(9)[:, None, None, None]
    sheet = contact_sheet(clip, columns=3, scale=2)
    assert sheet.shape == (8, 3 * 12 + 2 * 2, 3)
    assert sheet.dtype == np.uint8
    row = sheet[0, :, 0]
    assert [set(row[i : i + 12].tolist()) for i in (0, 14, 28)] == [{0}, {40}, {80}]
    assert set(row[12:14].tolist()) == set(row[26:28].tolist()) == {255}


@pytest.mark.parametrize(("frames", "columns", "tiles"), [(2, 5, 2), (1, 3, 1), (5, 1, 1), (4, 4, 4)])
def test_a_contact_sheet_has_no_more_tiles_than_frames(frames: int, columns: int, tiles: int) -> None:
    sheet = contact_sheet(colour_clip(frames, 4, 6), columns, scale=1)
    assert sheet.shape == (4, 6 * tiles + tiles - 1, 3)


def test_clips_are_put_above_and_beside_each_other_with_white_lines() -> None:
    a, b = np.full((3, 4, 6, 3), 10, np.uint8), np.full((3, 4, 6, 3), 20, np.uint8)
    rows, columns = joined([a, b], axis=1), joined([a, b], axis=2, gap=3)
    assert rows.shape == (3, 9, 6, 3)
    assert columns.shape == (3, 4, 15, 3)
    assert rows[0, :, 0, 0].tolist() == [10] * 4 + [255] + [20] * 4
    assert columns[0, 0, :, 0].tolist() == [10] * 6 + [255] * 3 + [20] * 6
    assert np.array_equal(joined([a], axis=1), a)
