"""Frames as others keep them, as (h, w, 3) uint8 RGB: arrays of any usual layout, encoded images, several cameras."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vqvideo.data.decoded_image import decoded
from vqvideo.data.formats import Facts
from vqvideo.data.formats.rows import Pictures
from vqvideo.errors import InputError, suggest

BLOCK_BYTES = 2**24
"""Of an array that are in memory at a time, if a frame is not larger."""
_CHANNELS = (1, 3, 4)
"""Grey, RGB, RGBA."""
_OTHER = "another array: --columns frames=NAME"


class Blocks(Protocol):
    """An array that comes in blocks (n, ...), which can be gone through again."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of it."""
        ...

    def __iter__(self) -> Iterator[NDArray[Any]]: ...


class Sliced:
    """Blocks of what can be sliced: an array, one mapped from a file, a data set of HDF5.

    Args:
        array: it, with shape, dtype and slices.
        first: number of the frame to begin with.
        after: number of the frame after the last one; by default all.
    """

    def __init__(self, array: Any, first: int = 0, after: int | None = None) -> None:
        self.array, self.first = array, first
        self.after = len(array) if after is None else after

    @property
    def shape(self) -> tuple[int, ...]:
        """As `Blocks`."""
        return (self.after - self.first, *self.array.shape[1:])

    def __iter__(self) -> Iterator[NDArray[Any]]:
        step = block_length(self.array.shape, self.array.dtype)
        for start in range(self.first, self.after, step):
            yield np.asarray(self.array[start : min(start + step, self.after)])


def block_length(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Frames of an array (n, ...) that are read together."""
    frame = int(np.prod(shape[1:], dtype=object)) * dtype.itemsize
    return max(1, BLOCK_BYTES // max(1, frame))


# ---------------------------------------------------------------- the frames of a recording


class ArrayPictures:
    """Frames of an array: (n, h, w), or with 1, 3 or 4 channels last or first; uint8, other whole numbers from 0 to
    255, floats from 0 to 1, or bools.

    Args:
        blocks: the array.
        where: begins errors; names file, recording and array.
        fps: frames per second, where something says it.
        notes: what a user should know.

    Raises:
        InputError: no frames, or none that are surely pictures; of later frames when they are read.
    """

    def __init__(self, blocks: Blocks, where: str, fps: float | None = None, notes: tuple[str, ...] = ()) -> None:
        self.blocks, self.where = blocks, where
        self.layout = layout_of(blocks.shape, where)
        if np.prod(self.layout.size, dtype=object) > (Image.MAX_IMAGE_PIXELS or 0):
            h, w = self.layout.size
            raise InputError(f"{where}: frames of {h} x {w} pixels, expected at most {Image.MAX_IMAGE_PIXELS} of them")
        if not blocks.shape[0]:
            raise InputError(f"{where}: an array without frames {blocks.shape}, expected (n, h, w, 3)")
        next(self.frames())
        self.facts = Facts(blocks.shape[0], fps, self.layout.size, notes)

    def frames(self, first: int = 0) -> Iterator[NDArray[np.uint8]]:
        """As `Pictures`."""
        every = chain.from_iterable(self.blocks)
        for number, frame in enumerate(islice(every, first, None), first):
            yield self.layout.rgb(frame, f"{self.where}, frame {number}")


class EncodedPictures:
    """Frames that are JPEG or PNG (WebP, BMP) each.

    Args:
        images: the bytes of each, which can be gone through again, as a list.
        count: how many.
        where: begins errors.
        fps: frames per second, where something says it.
        notes: what a user should know.

    Raises:
        InputError: no frames, or the first cannot be decoded; of later frames when they are read.
    """

    def __init__(
        self, images: Iterable[bytes], count: int, where: str, fps: float | None = None, notes: tuple[str, ...] = ()
    ) -> None:
        self.images, self.where = images, where
        first = next(self.frames(), None)
        if first is None:
            raise InputError(f"{where}: no frames, expected an encoded image per frame")
        self.facts = Facts(count, fps, first.shape[:2], notes)

    def frames(self, first: int = 0) -> Iterator[NDArray[np.uint8]]:
        """As `Pictures`."""
        for number, image in enumerate(islice(self.images, first, None), first):
            yield np.array(decoded(BytesIO(image), f"{self.where}, frame {number}"))


class SideBySide:
    """Cameras that saw the same, from left to right, all as high as the first.

    Args:
        cameras: their frames.
        where: begins errors.

    Raises:
        InputError: they have different numbers of frames.
    """

    def __init__(self, cameras: Sequence[Pictures], where: str) -> None:
        self.cameras = cameras
        counts = [camera.facts.frames for camera in cameras]
        if len(set(counts)) > 1:
            raise InputError(f"{where}: the cameras have {counts} frames, expected as many of each")
        height = cameras[0].facts.size[0]
        width = sum(_width(camera.facts.size, height) for camera in cameras)
        notes = tuple(note for camera in cameras for note in camera.facts.notes)
        self.facts = replace(cameras[0].facts, size=(height, width), notes=notes)

    def frames(self, first: int = 0) -> Iterator[NDArray[np.uint8]]:
        """As `Pictures`; they end where the first camera ends."""
        for views in zip(*(camera.frames(first) for camera in self.cameras), strict=False):
            yield np.concatenate([_as_high(view, len(views[0])) for view in views], axis=1)


def side_by_side(cameras: Sequence[Pictures], where: str) -> Pictures:
    """The frames of one camera, or of several beside each other."""
    return cameras[0] if len(cameras) == 1 else SideBySide(cameras, where)


def chosen_cameras(found: Sequence[str], asked: Sequence[str], where: str) -> list[str]:
    """The cameras to keep: those that are asked for, by name or by the last part of it; else the only one.

    Raises:
        InputError: there is none, another is asked for, or several are there and none is asked for.
    """
    if not found:
        raise InputError(f"{where}: no pictures in it; if they have another name: --columns frames=NAME")
    if not asked and len(found) > 1:
        raise InputError(
            f"{where}: {len(found)} cameras ({', '.join(found)}), expected one, or several to lay side by side: "
            f"--cameras {found[0]}"
        )
    return [_camera(name, found, where) for name in asked] or list(found)


def _camera(name: str, found: Sequence[str], where: str) -> str:
    ends = [camera for camera in found if camera.replace(".", "/").split("/")[-1] == name]
    if name in found or len(ends) == 1:
        return name if name in found else ends[0]
    raise InputError(f"{where}: no camera {name!r} (--cameras); {suggest(name, found) or ', '.join(found)}")


def _width(size: tuple[int, int], height: int) -> int:
    return max(1, round(size[1] * height / size[0]))


def _as_high(frame: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    if len(frame) == height:
        return frame
    size = (_width(frame.shape[:2], height), height)
    return np.array(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))


# ---------------------------------------------------------------- one frame


class Layout(NamedTuple):
    """How a frame lies in an array."""

    size: tuple[int, int]
    """(h, w) in pixels."""
    first: bool
    """Whether channels come before rows; where there are none it does not count."""

    def rgb(self, frame: NDArray[Any], where: str) -> NDArray[np.uint8]:
        """One frame as (h, w, 3) uint8. InputError for values that are no colours."""
        pixels = _eight_bits(frame, where).reshape((-1, *self.size) if self.first else (*self.size, -1))
        pixels = np.moveaxis(pixels, 0, -1) if self.first else pixels
        if pixels.shape[2] == 4:
            colour, alpha = pixels[..., :3].astype(np.uint16), pixels[..., 3:].astype(np.uint16)
            pixels = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(pixels, (*self.size, 3)))


def layout_of(shape: tuple[int, ...], where: str) -> Layout:
    """How frames lie in an array (n, ...). InputError where its shape does not say it."""
    expected = f"expected (n, h, w, 3), (n, 3, h, w), or (n, h, w) of grey ones, or {_OTHER}"
    frame = shape[1:]
    if len(frame) == 2 and min(frame) > 0:
        return Layout((frame[0], frame[1]), False)
    last, first = (len(frame) == 3 and min(frame) > 0 and frame[side] in _CHANNELS for side in (-1, 0))
    if last and first:
        raise InputError(f"{where}: frames of shape {frame}, whose channels may be first or last; {expected}")
    if not (last or first):
        more = ". Are these several frames stacked? Save the newest one of each step" if len(frame) > 2 else ""
        raise InputError(f"{where}: shape {shape}, {expected}{more}")
    return Layout((frame[1], frame[2]), True) if first else Layout((frame[0], frame[1]), False)


def _eight_bits(frame: NDArray[Any], where: str) -> NDArray[np.uint8]:
    if frame.dtype == np.uint8:
        return frame
    if frame.dtype.kind == "b":
        return frame.astype(np.uint8) * np.uint8(255)
    if frame.dtype.kind not in "iuf":
        raise InputError(f"{where}: values of type {frame.dtype}, expected uint8, or {_OTHER}")
    low, high, most = frame.min(), frame.max(), 1 if frame.dtype.kind == "f" else 255
    if not (low >= 0 and high <= most):
        raise InputError(
            f"{where}: {frame.dtype} from {low:g} to {high:g}, expected 0 to {most}: save them as uint8, or name "
            f"{_OTHER}"
        )
    return (frame.astype(np.float32) * 255 + 0.5).astype(np.uint8) if most == 1 else frame.astype(np.uint8)
