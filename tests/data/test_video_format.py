"""Films of every kind, read frame by frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from videos import moving_frames, turn, write_video

from vqvideo.data.config import ImportConfig
from vqvideo.data.formats import FORMATS, Recording, reader_of
from vqvideo.errors import InputError


def film(path: Path) -> Recording:
    reader = reader_of(ImportConfig(path))[1]
    return reader.open(reader.names[0])


def frames_of(path: Path) -> np.ndarray:
    return np.stack([moment.frame for moment in film(path).moments()])


KINDS = [
    ("x.mkv", "ffv1", "bgr0", 0),
    ("x.avi", "ffv1", "bgr0", 0),
    ("x.mov", "png", "rgb24", 0),
    ("x.mp4", "libx264", "yuv444p", 12),
    ("x.webm", "libvpx-vp9", "yuv420p", 60),
    ("x.gif", "gif", "rgb8", 100),
    ("ten_bits.mkv", "ffv1", "yuv444p10le", 4),
    ("sixteen_bits.mkv", "ffv1", "gray16le", None),
    ("gray.mkv", "ffv1", "gray", None),
]


@pytest.mark.parametrize(("name", "codec", "pixels", "tolerance"), KINDS, ids=lambda value: str(value))
def test_a_film_of_any_kind_gives_its_frames_in_order(
    tmp_path: Path, name: str, codec: str, pixels: str, tolerance: int | None
) -> None:
    real = moving_frames(12)
    write_video(tmp_path / name, real, codec=codec, pixels=pixels)
    facts, found = film(tmp_path).facts, frames_of(tmp_path)
    assert (facts.frames, facts.fps, facts.size, facts.notes) == (12, 10.0, (32, 48), ())
    assert (found.dtype, found.shape) == (np.uint8, real.shape)
    if tolerance is None:  # gray: all channels are alike
        assert (found == found[..., :1]).all()
        assert abs(found[:, 20:, 30:].astype(int) - real[:, 20:, 30:]).max() <= 4
    else:
        # Away from the border of the red quarter, where codecs smear.
        for part in (np.s_[:, 2:10, 2:16], np.s_[:, 22:, 32:]):
            assert abs(found[part].astype(int) - real[part]).max() <= tolerance


def test_odd_sides_stay_odd(tmp_path: Path) -> None:
    real = moving_frames(3, (31, 47))
    assert np.array_equal(frames_of(write_video(tmp_path / "x.mkv", real)), real)


def test_transparent_parts_are_shown_on_white(tmp_path: Path) -> None:
    rgba = np.dstack([np.full((16, 16, 3), 40, np.uint8), np.full((16, 16), 255, np.uint8)])
    rgba[:8, :, 3] = 0
    rgba[8:, 8:, 3] = 51
    write_video(tmp_path / "x.mov", np.stack([rgba] * 2), codec="png", pixels="rgba")
    found = frames_of(tmp_path / "x.mov")[1]
    assert (found[:8] == 255).all()
    assert (found[8:, :8] == 40).all()
    assert (found[8:, 8:] == 212).all()


def test_a_film_is_upright_as_the_camera_was_held(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mp4", moving_frames(2), codec="libx264", pixels="yuv444p")
    turn(path)
    assert film(path).facts.size == (48, 32)
    red = frames_of(path)[0, ..., 0] > 100
    assert red[2:20, 18:].all(), "what was upper left is upper right"
    assert not red[30:].any()


@pytest.mark.parametrize("name", ["x.mkv", "x.mp4"])
def test_a_variable_frame_rate_is_said_and_loses_no_frame(tmp_path: Path, name: str) -> None:
    when = [0, 100, 200, 233, 300, 700, 800]
    codec, pixels = ("libx264", "yuv444p") if name == "x.mp4" else ("ffv1", "bgr0")
    path = write_video(tmp_path / name, moving_frames(7), codec=codec, pixels=pixels, milliseconds=when)
    facts = film(path).facts
    assert facts.frames == len(frames_of(path)) == 7
    assert [note for note in facts.notes if "its frame rate varies" in note and "33 to 400 ms" in note]


def test_a_folder_is_searched_in_depth_and_in_order(tmp_path: Path) -> None:
    for name in ("b.mkv", "a/2.mkv", "a/10.mkv", ".hidden.mkv", ".git/x.mkv"):
        write_video(tmp_path / name, moving_frames(2))
    (tmp_path / "notes.txt").write_text("no film")
    (tmp_path / "folder.mp4").mkdir()
    reader = reader_of(ImportConfig(tmp_path))[1]
    assert reader.names == ["a/10.mkv", "a/2.mkv", "b.mkv"]
    assert reader.action_space.size == 0


def test_what_holds_no_film_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no videos in it \(it is empty\); videos end in .*\.mp4"):
        reader_of(ImportConfig(tmp_path))
    (tmp_path / "notes.txt").write_text("no film")
    with pytest.raises(InputError, match=r"no videos in it \(1 \.txt\)"):
        reader_of(ImportConfig(tmp_path))
    with pytest.raises(InputError, match="no such file or folder"):
        reader_of(ImportConfig(tmp_path / "missing"))


@pytest.mark.parametrize(
    "content", [b"", b"junk" * 99, b"#EXTM3U\n#EXTINF:1,\nx.mkv\n", b"ffconcat version 1.0\nfile x.mkv\n"]
)
def test_a_file_that_is_no_film_is_named_and_lists_of_other_files_are_not_followed(
    tmp_path: Path, content: bytes
) -> None:
    write_video(tmp_path / "x.mkv", moving_frames(2))
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.mp4: not a video that can be read \("):
        film(tmp_path / "bad.mp4")


def test_a_film_that_was_cut_off_says_so_or_gives_what_there_is(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.avi", np.random.default_rng(0).integers(0, 256, (9, 32, 48, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:20000])
    facts = film(path).facts
    assert 2 <= len(frames_of(path)) <= facts.frames < 9, "half a frame may be decoded or not"
    assert facts.notes == (f"it says that it has 9 frames and holds {facts.frames}: cut off?",)


def test_every_format_can_be_asked_for_and_has_a_reader() -> None:
    for format in FORMATS:
        with pytest.raises(InputError, match="no such file or folder"):
            reader_of(ImportConfig(Path("missing"), format))
    with pytest.raises(InputError, match=r"--from video: no such format; did you mean .*videos"):
        reader_of(ImportConfig(Path(), "video"))
