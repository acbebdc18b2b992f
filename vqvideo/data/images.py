"""A folder of images as clips of one frame."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from vqvideo.data.clips import to_video
from vqvideo.data.decoded_image import decoded
from vqvideo.data.files_below import files_below
from vqvideo.errors import InputError

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})

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
        # Like the recorder: antialiased when it shrinks.
        fitted = ImageOps.fit(decoded(path, path), self.frame_size[::-1], Image.Resampling.BILINEAR)
        return {"frames": to_video(np.array(fitted))[None]}
