"""One episode as arrays that somebody has: which are there, whether they fit together, and what stands for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vqvideo.data.episode import Steps
from vqvideo.errors import InputError, suggest

Alignment = Literal["drop-last", "repeat-last"]
FIELDS = ("frames", "actions", "rewards", "terminated", "truncated")
_BLOCK = 64
"""Frames that are converted together."""


@dataclass(frozen=True, eq=False)
class ArrayEpisode:
    """Arrays that fit together; made by `of`."""

    pictures: NDArray[np.uint8]
    """(n, h, w), (n, h, w, 1) or (n, h, w, 3), as they were given."""
    stills: int
    """How often the last frame is shown again."""
    actions: NDArray[Any]
    """(T, a) as they were given; (T, 0) where there were none."""
    vector: bool
    """Whether each action was an array, and no single number."""
    rewards: NDArray[np.float32]
    """(T,)"""
    terminated: NDArray[np.bool_]
    """(T,)"""
    truncated: NDArray[np.bool_]
    """(T,)"""
    missing: tuple[str, ...]
    """What was not given, and stands here as nothing: "rewards", "ends"."""

    @classmethod
    def of(cls, episode: Mapping[str, Any], align: Alignment | None = None) -> ArrayEpisode:
        """Checks the arrays of an episode.

        Args:
            episode: see `vqvideo.data.write_store`.
            align: what to do with as many frames as actions.

        Raises:
            InputError: an array is missing, of another type or of another length; names it.
        """
        if not isinstance(episode, Mapping):
            raise InputError(f"found {type(episode).__name__}, expected a mapping with arrays: {', '.join(FIELDS)}")
        for name in episode:
            if name not in FIELDS:
                raise InputError(
                    f"unknown array {name!r}: {suggest(str(name), FIELDS) or 'known: ' + ', '.join(FIELDS)}"
                )
        given = {name: np.asarray(value) for name, value in episode.items() if value is not None}
        pictures = _pictures(given.get("frames"))
        given_rows = rows = _rows(given, len(pictures))
        stills = 0
        if rows == len(pictures):
            rows, stills = _aligned(rows, align)
        elif rows != len(pictures) - 1:
            raise InputError(f"{len(pictures)} frames and {rows} actions, expected one more frame than actions")
        actions = given.get("actions", np.zeros((rows, 0)))[:rows]
        ends = {
            name: _flags(given[name], name, given_rows)[:rows] for name in ("terminated", "truncated") if name in given
        }
        terminated = ends.get("terminated", np.zeros(rows, bool))
        cut = (np.arange(rows) == rows - 1) & ~terminated
        return cls(
            pictures,
            stills,
            actions.reshape(rows, int(np.prod(actions.shape[1:]))),
            actions.ndim > 1,
            _rewards(given.get("rewards", np.zeros(rows)), rows),
            terminated,
            ends.get("truncated", cut),
            (() if "rewards" in given else ("rewards",)) + (() if ends else ("ends",)),
        )

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the frames in pixels."""
        return self.pictures.shape[1:3]

    @property
    def steps(self) -> Steps:
        """What a store keeps beside the frames."""
        return Steps(self.actions.astype(np.float64), self.rewards, self.terminated, self.truncated)

    def frames(self, size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
        """All T+1 frames in blocks, (n, h, w, 3) uint8 at `size` (h, w). Of another shape the middle is kept."""
        for start in range(0, len(self.pictures), _BLOCK):
            yield _rgb(self.pictures[start : start + _BLOCK], size)
        if self.stills:
            yield np.repeat(_rgb(self.pictures[-1:], size), self.stills, axis=0)


def _pictures(frames: NDArray[Any] | None) -> NDArray[np.uint8]:
    expected = "expected uint8 of shape (T+1, h, w, 3), or (T+1, h, w) and (T+1, h, w, 1) for gray ones"
    if frames is None:
        raise InputError(f"frames are missing, {expected}")
    found = f"frames are {frames.dtype} of shape {frames.shape}, {expected}"
    if frames.dtype != np.uint8:
        raise InputError(f"{found}; of floats from 0 to 1: (255 * frames).round().astype(numpy.uint8)")
    if frames.ndim == 4 and frames.shape[3] not in (1, 3):
        raise InputError(f"{found}; channels come last: numpy.moveaxis(frames, 1, -1); no alpha: frames[..., :3]")
    if frames.ndim not in (3, 4) or len(frames) < 2:
        raise InputError(f"{found}, and at least two of them")
    return frames


def _rows(given: Mapping[str, NDArray[Any]], frames: int) -> int:
    """The number of actions, rewards and flags, which agree; without any of them one less than frames."""
    lengths = {name: len(array) for name, array in given.items() if name != "frames" and array.ndim}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise InputError(f"found {listed} for {frames} frames, expected equally many")
    return next(iter(lengths.values()), frames - 1)


def _aligned(rows: int, align: Alignment | None) -> tuple[int, int]:
    """How many rows count where there are as many of them as frames, and how often the last frame is shown again."""
    if align == "drop-last":
        return rows - 1, 0
    if align == "repeat-last":
        return rows, 1
    raise InputError(
        f"{rows} frames and {rows} actions, expected one more frame than actions: the last action leads to a frame "
        "that is missing. align='drop-last' leaves that action out, align='repeat-last' shows the last frame again"
    )


def _rewards(rewards: NDArray[Any], rows: int) -> NDArray[np.float32]:
    if rewards.dtype.kind not in "fiub" or rewards.ndim != 1:
        raise InputError(f"rewards are {rewards.dtype} of shape {rewards.shape}, expected numbers of shape (T,)")
    return rewards[:rows].astype(np.float32)


def _flags(flags: NDArray[Any], name: str, rows: int) -> NDArray[np.bool_]:
    """A flag for each step; one for the whole episode is that of its last step."""
    if flags.dtype.kind not in "biu" or flags.ndim > 1:
        raise InputError(f"{name} is {flags.dtype} of shape {flags.shape}, expected one bool, or some of shape (T,)")
    return flags.astype(bool) if flags.ndim else (np.arange(rows) == rows - 1) & bool(flags)


def _rgb(pictures: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(n, h, w), (n, h, w, 1) or (n, h, w, 3) as (n, *size, 3)."""
    pictures = pictures[..., None] if pictures.ndim == 3 else pictures
    frames = np.broadcast_to(pictures, (*pictures.shape[:3], 3))
    if frames.shape[1:3] == size:
        return frames
    # Like the recorder: antialiased when it shrinks.
    fitted = (ImageOps.fit(Image.fromarray(frame), size[::-1], Image.Resampling.BILINEAR) for frame in frames)
    return np.stack([np.asarray(picture) for picture in fitted])
