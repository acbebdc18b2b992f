"""Codecs as peers: what goes in comes out, quality costs bytes, and what they refuse is explained."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from vqvideo.errors import InputError
from vqvideo.evaluation import metrics
from vqvideo.scripts.benchmarks.codecs import X264, X265, Codec, DoubledSvtAv1, SvtAv1
from vqvideo.scripts.benchmarks.yuv import from_planes, to_planes

AV1 = [SvtAv1(preset=8), SvtAv1(pixels="yuv420p10le", preset=8), DoubledSvtAv1(preset=8)]
KINDS = [X264(), X264(pixels="yuv420p"), X265(), *AV1]
by_name = pytest.mark.parametrize("codec", KINDS, ids=lambda codec: codec.name)


def clip(frames: int = 10, size: int = 64) -> np.ndarray:
    """Smooth colours that slide, with a frame's number in its brightness."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(size), np.arange(size), indexing="ij")
    waves = [np.sin((x + 3 * t) / 9 + phase) * np.cos((y - t) / 7 - phase) for phase in (0.0, 1.0, 2.5)]
    return (np.stack(waves, axis=-1) * 60 + 80 + 8 * t[..., None]).clip(0, 255).astype(np.uint8)


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    a, b = (torch.from_numpy(v).permute(0, 3, 1, 2).float() / 255 for v in (one, two))
    return metrics.psnr(a, b).mean().item()


def at(codec: Codec, crf: int) -> Codec:
    return type(codec)(**{**vars(codec), "crf": crf})


@by_name
def test_better_quality_costs_bytes(codec: Codec) -> None:
    frames = clip()
    results = [at(codec, crf).encode(frames) for crf in (10, 30, 50)]
    sizes, qualities = [r.bytes for r in results], [psnr(r.frames, frames) for r in results]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1.5 * sizes[2] > 0
    assert qualities == sorted(qualities, reverse=True)
    assert qualities[0] > qualities[2] + 2


@by_name
def test_all_frames_come_back_in_their_order(codec: Codec) -> None:
    frames = clip(13)
    decoded = at(codec, 20).encode(frames, fps=30).frames
    assert decoded.shape == frames.shape
    assert decoded.dtype == np.uint8
    errors = np.abs(decoded[:, None].astype(int) - frames[None].astype(int)).mean(axis=(2, 3, 4))
    assert errors.argmin(axis=1).tolist() == list(range(13))


@by_name
def test_colours_survive_the_way_there_and_back(codec: Codec) -> None:
    """A wrong matrix or range costs far more than any codec does at its best."""
    corners = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 30, 120]], np.uint8)
    frames = np.broadcast_to(corners[:, None, None], (6, 64, 64, 3)).copy()
    assert psnr(at(codec, 2).encode(frames).frames, frames) > 40


@by_name
@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="Linux tells how urgent a process is")
def test_no_codec_makes_the_process_more_urgent(codec: Codec) -> None:
    before = os.sched_getscheduler(0)
    codec.encode(clip(2))
    assert os.sched_getscheduler(0) == before


def test_halved_colour_planes_keep_grey_exactly_and_are_half_as_large() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 1), dtype=np.uint8).repeat(3, axis=-1)
    planes = to_planes(grey, subsampled=True, bits=8)
    assert [plane.shape for plane in planes] == [(2, 6, 8), (2, 3, 4), (2, 3, 4)]
    assert np.array_equal(from_planes(planes, 8), grey)


def test_only_what_a_decoder_needs_is_counted() -> None:
    assert X264().payload(b"\0\0\0\1\x06x264 - core" + b"\0\0\0\1\x67abc" + b"\0\0\1\x65payload") == 4 + 8
    assert X265().payload(b"\0\0\0\1\x4e\x01x265 - core" + b"\0\0\1\x02\x01payload") == 9
    assert SvtAv1().payload(b"\x12\x00" + b"rest") == 4
    # Its name alone is longer than this.
    assert X264(crf=51).encode(np.zeros((1, 64, 64, 3), np.uint8)).bytes < 100


@pytest.mark.parametrize(
    "codec, size, message",
    [
        (SvtAv1(), 32, "libsvtav1 takes frames of 64 pixels a side or more, these are 32x32"),
        (DoubledSvtAv1(), 16, "takes frames of 32 pixels"),
        (X265(), 66, "66x66: take multiples of 8"),
        (X264(pixels="yuv420p"), 33, "takes even sides, these frames are 33x33: choose yuv444p"),
    ],
)
def test_sizes_that_a_codec_refuses_are_explained(codec: Codec, size: int, message: str) -> None:
    assert not codec.takes(size, size)
    with pytest.raises(InputError, match=message):
        codec.encode(np.zeros((2, size, size, 3), np.uint8))


@pytest.mark.parametrize("codec, size", list(zip(KINDS, (17, 16, 72, 66, 64, 32), strict=True)), ids=str)
def test_what_a_codec_says_that_it_takes_it_takes(codec: Codec, size: int) -> None:
    assert codec.takes(size, size)
    assert codec.encode(clip(3, size)).frames.shape == (3, size, size, 3)


@pytest.mark.parametrize("frames", [np.zeros((2, 64, 64)), np.zeros((0, 64, 64, 3), np.uint8), np.ones((2, 64, 64, 3))])
def test_other_things_than_clips_are_refused(frames: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"expected \(t, h, w, 3\) uint8"):
        X264().encode(frames)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(InputError, match="pixels 'yuv444p', expected one of yuv420p"):
        SvtAv1(pixels="yuv444p")
    with pytest.raises(InputError, match=r"crf 60, expected 0..51"):
        X264(crf=60)
