"""Every kind of image that the formats have gives the pixels that a browser would show on a white page."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqvideo.data.images import Images
from vqvideo.errors import InputError

RED, GREEN, BLUE, WHITE = (200, 0, 0), (0, 200, 0), (0, 0, 200), (255, 255, 255)


def shown(file: Path, size: tuple[int, int]) -> list[list[tuple[int, ...]]]:
    """The pixels of the only image of a folder, by rows."""
    frame = Images(file.parent, size)[0]["frames"][0].permute(1, 2, 0)
    return [[tuple(pixel) for pixel in row] for row in frame.tolist()]


def grey(*values: int) -> list[list[tuple[int, ...]]]:
    """A row of grey pixels."""
    return [[(value,) * 3 for value in values]]


def write_png(path: Path, size: tuple[int, int], bits: int, colour: int, row: bytes, **chunks: bytes) -> Path:
    """A PNG of `size` (w, h) whose rows are all `row`; Pillow writes few of the kinds that it reads."""
    w, h = size
    header = struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, 0)
    parts = {"IHDR": header, **chunks, "IDAT": zlib.compress((b"\0" + row) * h), "IEND": b""}
    made = b"\x89PNG\r\n\x1a\n"
    for name, data in parts.items():
        body = name.encode() + data
        made += struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(made)
    return path


def words(*values: int) -> bytes:
    """Numbers of 16 bits as PNG stores them."""
    return struct.pack(f">{len(values)}H", *values)


def corners() -> Image.Image:
    """(8, 16) pixels with another colour in each corner."""
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:4, :8], pixels[:4, 8:], pixels[4:, :8], pixels[4:, 8:] = RED, GREEN, BLUE, WHITE
    return Image.fromarray(pixels)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [RED, GREEN, BLUE, WHITE]),
        (2, [GREEN, RED, WHITE, BLUE]),
        (3, [WHITE, BLUE, GREEN, RED]),
        (4, [BLUE, WHITE, RED, GREEN]),
        (5, [RED, BLUE, GREEN, WHITE]),
        (6, [BLUE, RED, WHITE, GREEN]),
        (7, [WHITE, GREEN, BLUE, RED]),
        (8, [GREEN, WHITE, RED, BLUE]),
        (77, [RED, GREEN, BLUE, WHITE]),
    ],
)
def test_a_photo_is_turned_as_its_camera_says(
    tmp_path: Path, ending: str, orientation: int, expected: list[tuple[int, ...]]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    corners().save(tmp_path / f"x.{ending}", exif=exif)
    h, w = (16, 8) if orientation in (5, 6, 7, 8) else (8, 16)
    pixels = shown(tmp_path / f"x.{ending}", (h, w))
    found = [pixels[1][1], pixels[1][-2], pixels[-2][1], pixels[-2][-2]]
    assert np.abs(np.subtract(found, expected)).max() < 60


def test_damaged_exif_and_colour_profiles_leave_the_pixels(tmp_path: Path) -> None:
    for number, damaged in enumerate((b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12garbage", b"Exif\0\0", b"nothing")):
        corners().save(tmp_path / f"{number}.webp", exif=damaged, icc_profile=b"no profile", lossless=True)
    images = Images(tmp_path, (8, 16))
    assert all(np.array_equal(images[i]["frames"][0].permute(1, 2, 0), np.asarray(corners())) for i in range(3))


@pytest.mark.parametrize(
    ("bits", "row", "transparent", "expected"),
    [
        (1, b"\xa0", None, (255, 0, 255, 0)),
        (1, b"\xa0", 0, (255, 255, 255, 255)),
        (2, b"\x1b", None, (0, 85, 170, 255)),
        (2, b"\x1b", 1, (0, 255, 170, 255)),
        (4, b"\x04\x8f", 4, (0, 255, 136, 255)),
        (8, bytes([0, 64, 128, 255]), None, (0, 64, 128, 255)),
        (8, bytes([0, 64, 128, 255]), 64, (0, 255, 128, 255)),
        (16, words(0, 0x40FF, 0x8000, 0xFFFF), None, (0, 64, 128, 255)),
        (16, words(0, 0x40FF, 0x4000, 0xFFFF), 0x40FF, (0, 255, 64, 255)),
    ],
)
def test_grey_of_any_depth(
    tmp_path: Path, bits: int, row: bytes, transparent: int | None, expected: tuple[int, ...]
) -> None:
    chunks = {} if transparent is None else {"tRNS": words(transparent)}
    assert shown(write_png(tmp_path / "x.png", (4, 1), bits, 0, row, **chunks), (1, 4)) == grey(*expected)


@pytest.mark.parametrize(
    ("bits", "colour", "row", "chunks", "expected"),
    [
        (8, 2, bytes([10, 20, 30, 1, 2, 3]), {}, [(10, 20, 30), (1, 2, 3)]),
        (8, 2, bytes([10, 20, 30, 1, 2, 3]), {"tRNS": words(1, 2, 3)}, [(10, 20, 30), WHITE]),
        (16, 2, words(0x4000, 0x80FF, 0xFFFF, 0, 0x12FF, 1), {}, [(64, 128, 255), (0, 18, 0)]),
        (8, 3, bytes([0, 1]), {"PLTE": bytes([*RED, *BLUE])}, [RED, BLUE]),
        (8, 3, bytes([0, 1]), {"PLTE": bytes([*RED, *BLUE]), "tRNS": b"\0"}, [WHITE, BLUE]),
        (8, 3, bytes([0, 1]), {"PLTE": bytes([*RED, 0, 0, 0]), "tRNS": bytes([255, 127])}, [RED, (128,) * 3]),
        (8, 4, bytes([90, 255, 90, 0]), {}, [(90,) * 3, WHITE]),
        (16, 4, words(0x5A00, 0xFFFF, 0x5A00, 0), {}, [(90,) * 3, WHITE]),
        (8, 6, bytes([*RED, 255, *RED, 0]), {}, [RED, WHITE]),
        (8, 6, bytes([0, 0, 0, 127, 255, 255, 255, 127]), {}, [(128,) * 3, WHITE]),
        (16, 6, words(0xC800, 0, 0, 0xFFFF, 0xC800, 0, 0, 0), {}, [RED, WHITE]),
    ],
)
def test_colours_of_any_depth_palettes_and_transparency_on_white(
    tmp_path: Path, bits: int, colour: int, row: bytes, chunks: dict[str, bytes], expected: list[tuple[int, ...]]
) -> None:
    assert shown(write_png(tmp_path / "x.png", (2, 1), bits, colour, row, **chunks), (1, 2)) == [expected]


def test_transparency_that_cannot_be_told_from_the_pixels_is_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", (1, 1), 16, 2, words(1, 2, 3), tRNS=words(1, 2, 3))
    with pytest.raises(InputError, match=r"x\.png: .*RGB of 16 bits .* transparent\); .*save it as 8-bit RGB"):
        Images(tmp_path, (1, 1))[0]


def test_the_inks_of_a_print_become_colours(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "x.jpg", quality=95)
    assert b"Adobe" in (tmp_path / "x.jpg").read_bytes(), "such files hold inverted values"
    assert shown(tmp_path / "x.jpg", (8, 8))[4][4] == pytest.approx((0, 255, 255), abs=3)


@pytest.mark.parametrize("ending", ["png", "webp", "jpg"])
def test_of_an_animation_the_first_frame_is_read(tmp_path: Path, ending: str) -> None:
    later = [Image.new("RGB", (16, 8), BLUE)] * 2
    # A JPEG of several pictures is what phones call MPO.
    kind = {"jpg": "MPO"}.get(ending)
    Image.new("RGB", (16, 8), RED).save(tmp_path / f"x.{ending}", kind, save_all=True, append_images=later)
    assert shown(tmp_path / f"x.{ending}", (8, 16))[4][4] == pytest.approx(RED, abs=3)


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_an_image_of_too_many_pixels_is_refused_before_it_fills_the_memory(tmp_path: Path, side: int) -> None:
    write_png(tmp_path / "x.png", (side, side), 1, 0, b"")
    with pytest.raises(InputError, match=r"x\.png: more than \d+ pixels; shrink or remove it"):
        Images(tmp_path, (8, 8))[0]


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (0, 0)])
def test_an_image_without_pixels_is_an_error(tmp_path: Path, size: tuple[int, int]) -> None:
    write_png(tmp_path / "x.png", size, 8, 2, b"\0" * 3 * size[0])
    with pytest.raises(InputError, match=r"x\.png: not an image that can be read"):
        Images(tmp_path, (8, 8))[0]


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (3, 2)])
def test_an_image_of_any_shape_fills_a_frame(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, RED).save(tmp_path / "x.bmp")
    assert shown(tmp_path / "x.bmp", (4, 6)) == [[RED] * 6] * 4
