"""A folder of images as clips of one frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from vqvideo.data.clips import to_video
from vqvideo.errors import InputError

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""What is decoded, whatever a file is called: Pillow knows dozens, and some of them start other programs."""


class Images(Dataset[dict[str, Tensor]]):
    """All images below a folder, in the order of their names.

    An item is {"frames": (1, 3, h, w) uint8}: the largest centred piece with the shape of a frame, resized to it.

    Args:
        folder: where to look, in depth.
        frame_size: (h, w) in pixels.

    Raises:
        InputError: there is no image, or one cannot be read (when it is asked for).
    """

    def __init__(self, folder: Path, frame_size: tuple[int, int]) -> None:
        self.frame_size = frame_size
        # Files only: to open a pipe would wait for ever.
        found_here = (p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
        files = sorted(map(str, found_here)) if folder.is_dir() else []
        if not files:
            found = "no images in it" if folder.is_dir() else "no such folder"
            raise InputError(f"{folder}: {found}, expected files that end in {', '.join(sorted(ENDINGS))}")
        # An array: worker processes would copy a list of strings page by page.
        self._files = np.array(files)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        path = str(self._files[index])
        try:
            with Image.open(path, formats=_FORMATS) as image:
                # Like the recorder: antialiased when it shrinks.
                fitted = ImageOps.fit(image.convert("RGB"), self.frame_size[::-1], Image.Resampling.BILINEAR)
                pixels = np.array(fitted)
        # Of a damaged file the decoders raise what comes to them: OSError, SyntaxError, ValueError, struct.error, ...
        except Exception as error:
            raise InputError(f"{path}: not an image that can be read ({error}); repair or remove it") from error
        return {"frames": to_video(pixels)[None]}
