"""Two levels of codes: the grid holds both, the bottom level knows the top one, and frames show both."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_tokenizers import moving_squares, noise, small_backbone, small_quantizer, small_vqvae, wake
from torch import nn

from vqvideo.errors import InputError
from vqvideo.models.tokenizer import TwoLevelConv, VQVAEConfig
from vqvideo.models.tokenizer.two_levels import joined, parted
from vqvideo.models.tokenizer.vqvae import VQVAE


def test_levels_that_are_joined_in_a_grid_are_parted_again() -> None:
    top, bottom = torch.randn(2, 3, 4, 6, 5), torch.randn(2, 3, 8, 12, 5)
    grid = joined(top, bottom)
    assert grid.shape == (2, 3, 10, 12, 5)
    assert torch.equal(grid[:, :, 0, :6], top[:, :, 0])
    assert torch.equal(grid[:, :, 0, 6:], top[:, :, 1])
    assert all(torch.equal(a, b) for a, b in zip(parted(grid), (top, bottom), strict=True))


def test_a_quarter_more_rows_are_the_top_level() -> None:
    model = VQVAEConfig(TwoLevelConv(strides=(2, 8, 8)), small_quantizer()).build((64, 96))
    assert (model.grid, model.tokens) == ((10, 12), 8 * 12 + 4 * 6)


@pytest.mark.parametrize("size", [(48, 64), (64, 40)])
def test_frames_that_have_no_two_levels_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"two levels of codes with strides of 8x8: record with --frame-size \d"):
        TwoLevelConv(strides=(2, 8, 8)).grid_of(size)


def test_every_code_of_either_level_is_seen_in_the_frames() -> None:
    model = small_vqvae(TwoLevelConv)
    codes = model.encode(noise(1, 1))
    for row, column in ((0, 0), (0, 3), (1, 0), (4, 3)):
        other = codes.clone()
        other[0, 0, row, column] = (other[0, 0, row, column] + 1) % 32
        assert (model.decode(other) - model.decode(codes)).abs().max() > 1e-4


def quiet_features(model: VQVAE) -> None:
    """Cuts what the bottom level sees of the frames themselves: only the codes of the top level are left to it."""
    conv = model.encoder.given_top.layers[-1].conv
    norm = model.encoder.given_top.layers[0]
    width = conv.in_channels // 2
    with torch.no_grad():
        conv.weight[:, :width] = 0
        norm.weight.fill_(1)


def test_the_bottom_level_knows_the_codes_of_the_top_level() -> None:
    model = small_vqvae(TwoLevelConv)
    quiet_features(model)
    frames = noise(1, 1)
    before = model._latents(model._signed(frames), model.init_state(1))[0]
    with torch.no_grad():
        model.quantizer.codebook.mul_(-1)
    after = model._latents(model._signed(frames), model.init_state(1))[0]
    rows = before.shape[2] // 5
    assert torch.equal(before[:, :, :rows], after[:, :, :rows]), "the top level is there before any code"
    assert (before[:, :, rows:] - after[:, :, rows:]).abs().max() > 1e-3


def test_a_copy_has_a_quantizer_of_its_own_and_no_second_set_of_weights() -> None:
    model = small_vqvae(TwoLevelConv)
    other = copy.deepcopy(model)
    frames = noise(2, 3)
    codes = model.encode(frames)
    with torch.no_grad():
        other.quantizer.codebook.normal_()
    assert torch.equal(model.encode(frames), codes)
    assert not any("quantizer" in name for name in model.encoder.state_dict())


def test_the_first_level_counts_once_in_the_statistics_of_the_codebook() -> None:
    model = small_vqvae(TwoLevelConv).train()
    model(moving_squares(4, 3))
    assert model._counted().counts.sum() == 4 * 2 * model.tokens


def test_two_levels_are_trained_together() -> None:
    """The gradient of the frames reaches the top level by way of the bottom level too."""
    torch.manual_seed(0)
    model = wake(VQVAEConfig(small_backbone(TwoLevelConv), small_quantizer()).build((16, 16)))
    assert isinstance(model, nn.Module)
    model.initialize(noise(8, 1))
    model.train()
    z, _ = model._latents(model._signed(noise(2, 1)), model.init_state(2))
    parted(z)[1].sum().backward()
    gradients = [p.grad for p in model.encoder.top.parameters()]
    assert all(g is not None and g.any() for g in gradients)
