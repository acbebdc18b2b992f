"""A folder of images as clips of one frame."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from vqvideo.data.clips import to_video
from vqvideo.data.files_below import files_below
from vqvideo.errors import InputError

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
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

logger = logging.getLogger(__name__)


class Images(Dataset[dict[str, Tensor]]):
    """All images below a folder, in the order of their names; hidden ones (".name") are left out.

    An item is {"frames": (1, 3, h, w) uint8}: the largest centred piece with the shape of a frame, resized to it.
    An image is read as a browser shows it: turned as its camera says (EXIF), transparent parts on white. Of 16 bits
    the upper 8 count, of an animation the first frame. Colour profiles are not applied.

    Args:
        folder: where to look, in depth.
        frame_size: (h, w) in pixels.

    Raises:
        InputError: there is no image, or one cannot be read (when it is asked for).
    """

    def __init__(self, folder: Path, frame_size: tuple[int, int]) -> None:
        self.frame_size = frame_size
        files, others = files_below(folder, ENDINGS)
        expected = f"images end in {', '.join(sorted(ENDINGS))}"
        if not files:
            found = "no images in it" if folder.is_dir() else "no such folder"
            convert = f" (convert what is there: {others})" if others else ""
            raise InputError(f"{folder}: {found}, {expected}{convert}")
        if others:
            logger.info("%s: left out %s; %s", folder, others, expected)
        # An array: worker processes would copy a list of strings page by page.
        self._files = np.array([str(folder / path) for path in files])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        path = str(self._files[index])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # Pillow only warns of what takes up to 0.5 GB, in every batch again.
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(path, formats=_FORMATS) as image:
                    # Like the recorder: antialiased when it shrinks.
                    fitted = ImageOps.fit(_rgb(image), self.frame_size[::-1], Image.Resampling.BILINEAR)
            pixels = np.array(fitted)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise InputError(f"{path}: more than {Image.MAX_IMAGE_PIXELS} pixels; shrink or remove it") from error
        # Of a damaged file the decoders raise what comes to them: OSError, SyntaxError, ValueError, struct.error, ...
        except Exception as error:
            raise InputError(
                f"{path}: not an image that can be read ({error}); repair it, save it as 8-bit RGB in one of "
                f"{', '.join(_FORMATS)}, or remove it"
            ) from error
        return {"frames": to_video(pixels)[None]}


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
