"""One PNG, JPEG, WebP or BMP as 8-bit RGB, as a browser shows it."""

from __future__ import annotations

import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

from vqvideo.errors import InputError

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""What is decoded, whatever a file is called: Pillow knows dozens, and some of them start other programs."""
_GREY_STEPS = {"L;2": 85, "L;4": 17}
"""Grey of 2 and 4 bits comes spread to 0 .. 255, by Pillow's name of the layout; the transparent value does not."""
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes the EXIF orientation. (ImageOps.exif_transpose also writes EXIF anew, and fails where it is damaged.)"""


def decoded(file: str | BinaryIO, where: str) -> Image.Image:
    """An image turned as its camera says (EXIF), transparent parts on white. Of 16 bits the upper 8 count, of an
    animation the first frame. Colour profiles are not applied.

    Args:
        file: a path, or what holds its bytes.
        where: begins errors.

    Raises:
        InputError: no image, damaged, or with more pixels than Pillow takes for an image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Pillow only warns of what takes up to 0.5 GB, in every batch again.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=_FORMATS) as image:
                return _rgb(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(f"{where}: more than {Image.MAX_IMAGE_PIXELS} pixels; shrink or remove it") from error
    # Of a damaged file the decoders raise what comes to them: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise InputError(
            f"{where}: not an image that can be read ({error}); repair it, save it as 8-bit RGB in one of "
            f"{', '.join(_FORMATS)}, or remove it"
        ) from error


def _rgb(file: ImageFile.ImageFile) -> Image.Image:
    """Any mode that the formats have as 8-bit RGB, upright and on white."""
    if "transparency" in file.info and file.mode in ("L", "RGB"):
        file.info["transparency"] = _transparent_value(file)
    image = _upright(file)
    # Grey of 16 bits, as newer and older Pillow call it: its own conversion makes everything above 255 white.
    if image.mode in ("I;16", "I"):
        image = _eight_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image.convert("RGBA"))
    return page.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    # Pixels outlive damaged EXIF, of which Pillow raises what it raises of damaged images.
    except Exception:
        turn = None
    return image if turn is None else image.transpose(turn)


def _transparent_value(image: ImageFile.ImageFile) -> int | tuple[int, ...]:
    """The grey or colour of a PNG that stands for transparent, in the 8 bits that its pixels come in."""
    value, layout = image.info["transparency"], str(image.tile[0][3])
    if layout == "RGB;16B":
        raise ValueError("RGB of 16 bits in which one colour stands for transparent")
    return value * _GREY_STEPS.get(layout, 1) if image.mode == "L" else value


def _eight_bits(image: Image.Image) -> Image.Image:
    values, transparent = np.asarray(image), image.info.get("transparency")
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.uint8(255) * (values != transparent)))
    return grey
