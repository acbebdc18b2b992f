"""Pixels: between uint8 and float, between channels last and channels first."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vqvideo.errors import InputError
from vqvideo.models.pixels import channels_first, channels_last, from_signed, to_signed, to_uint8, to_unit

ALL_BYTES = torch.arange(256, dtype=torch.uint8)


def test_every_byte_survives_the_way_to_floats_and_back() -> None:
    assert torch.equal(to_uint8(to_unit(ALL_BYTES)), ALL_BYTES)
    assert torch.equal(to_uint8(from_signed(to_signed(ALL_BYTES))), ALL_BYTES)
    assert torch.equal(to_uint8(from_signed(to_signed(to_unit(ALL_BYTES)))), ALL_BYTES)


def test_bytes_and_their_floats_are_the_same_frames() -> None:
    torch.testing.assert_close(to_signed(to_unit(ALL_BYTES)), to_signed(ALL_BYTES), atol=1e-6, rtol=0)
    assert to_signed(ALL_BYTES)[[0, 255]].tolist() == [-1, 1]
    assert to_unit(ALL_BYTES)[[0, 255]].tolist() == [0, 1]


def test_what_is_uint8_already_stays_as_it_is() -> None:
    assert torch.equal(to_uint8(ALL_BYTES), ALL_BYTES)


def test_floats_are_rounded_and_clamped_on_their_way_to_bytes() -> None:
    x = torch.tensor([-0.5, 0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.0, 7.0])
    assert to_uint8(x).tolist() == [0, 0, 0, 1, 255, 255, 255]
    assert from_signed(torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0])).tolist() == [0, 0, 0.5, 1, 1]


def test_half_precision_floats_become_the_nearest_bytes() -> None:
    assert torch.equal(to_uint8(to_unit(ALL_BYTES).half()), ALL_BYTES)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool], ids=str)
def test_frames_of_another_type_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match=r"expected uint8 in 0\.\.255 or float in 0\.\.1"):
        to_signed(torch.zeros(2, dtype=dtype))


@pytest.mark.parametrize("shape", [(4, 5, 3), (2, 4, 5, 3), (2, 7, 4, 5, 3)], ids=len)
def test_channels_go_first_and_back_last_in_tensors_and_arrays(shape: tuple[int, ...]) -> None:
    frames = torch.rand(shape)
    turned = channels_first(frames)
    assert turned.shape == (*shape[:-3], 3, 4, 5)
    assert torch.equal(turned[..., 1, :, :], frames[..., 1])
    assert torch.equal(channels_last(turned), frames)
    assert np.array_equal(channels_first(frames.numpy()), turned.numpy())
    assert np.array_equal(channels_last(turned.numpy()), frames.numpy())


def test_turning_channels_copies_nothing() -> None:
    frames = torch.zeros(2, 4, 5, 3)
    channels_first(frames)[0, 2, 3, 4] = 1
    assert frames[0, 3, 4, 2] == 1
