"""Two levels of codes: the grid holds both, the bottom level knows the top one, and frames show both."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import NOTHING, make_spec, tiny_prior
from tiny_tokenizers import moving_squares, noise, small_backbone, small_quantizer, small_vqvae, wake
from torch import nn

from vqvideo.errors import InputError
from vqvideo.models.prior import AutoregressiveHeadConfig
from vqvideo.models.tokenizer import TwoLevelConv, VQVAEConfig
from vqvideo.models.tokenizer.two_levels import joined, parted
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.world import EnvFacts, WorldModel


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
    with pytest.raises(InputError, match=r"cells of 32x16: record with --frame-size (32x64 or 64|64x32 or 64x48)"):
        TwoLevelConv(strides=(2, 8, 8)).grid_of(size)


def test_levels_that_are_coarsened_still_fit() -> None:
    backbone = TwoLevelConv(strides=(2, 8, 8))
    assert backbone.coarsened((128, 128), 80).grid_of((128, 128)) == (10, 8)
    assert backbone.coarsened((96, 96), 80) == backbone, "half as many rows would be no whole number of both levels"


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


def test_a_world_of_two_levels_dreams() -> None:
    """The prior draws the rows of the grid in their order, so the top level first."""
    vqvae = small_vqvae(TwoLevelConv, stride=2)
    spec = make_spec(NOTHING, grid=vqvae.grid, codebook_size=32, tokenizer=vqvae.fingerprint())
    prior = tiny_prior(spec, vqvae.codebook, head=AutoregressiveHeadConfig(layers=1, heads=2))
    world = WorldModel(vqvae, prior, EnvFacts("Tiny-v0", 10.0, 1)).eval()
    dream = world.imagine(noise(2, 3), steps=3, seed=0)
    assert dream.codes.shape == (2, 3, 5, 4)
    assert dream.frames.shape == (2, 6, 3, 16, 16)
    assert torch.equal(dream.frames, world.imagine(noise(2, 3), steps=3, seed=0).frames)
