"""Bits per dimension: those of distributions whose entropy is known, and a bound that lossless codes could reach."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_models import tiny_store, tiny_vqvae
from torch import Tensor

from vqvideo.data.clips import Clips
from vqvideo.evaluation.likelihood import error_spread, grey_level_bits, rate_per_dim, spread_in_training
from vqvideo.evaluation.tokenizer import evaluate_tokenizer
from vqvideo.models.pixels import to_uint8
from vqvideo.models.quantizers import EMAVQConfig
from vqvideo.models.tokenizer import StridedConv, VQVAEConfig

LEVELS = torch.arange(256, dtype=torch.uint8)


@pytest.mark.parametrize("mean", [-0.2, 0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("sigma", [1e-9, 1e-3, 0.05, 0.5, 20.0])
def test_all_grey_levels_together_have_a_probability_of_one(mean: float, sigma: float) -> None:
    bits = grey_level_bits(torch.full((256,), mean), LEVELS, sigma)
    assert (bits >= 0).all()
    assert (2.0**-bits).sum().item() == pytest.approx(1, abs=1e-9)


def test_values_of_a_gaussian_take_its_entropy() -> None:
    """log2 sigma sqrt(2 pi e), in grey levels, where it is wide beside a level and far from black and white."""
    sigma = 12.0
    values = 127.3 + sigma * torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    bits = grey_level_bits(torch.full_like(values, 127.3 / 255), values.round().to(torch.uint8), sigma / 255)
    assert bits.mean().item() == pytest.approx(math.log2(sigma * math.sqrt(2 * math.pi * math.e)), abs=0.01)


def test_a_wrong_spread_takes_more_bits_by_the_divergence() -> None:
    """Of a Gaussian of spread 1 in one of spread s: log2 s + (1 / s^2 - 1) / 2 log2 e."""
    values = 127 + 10 * torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    levels, mean = values.round().to(torch.uint8), torch.full_like(values, 127 / 255)
    right, wrong = (grey_level_bits(mean, levels, sigma / 255).mean().item() for sigma in (10, 20))
    assert wrong - right == pytest.approx(1 + (1 / 4 - 1) / 2 / math.log(2), abs=0.01)


def test_bits_far_from_the_mean_stay_finite_and_grow() -> None:
    bits = grey_level_bits(torch.zeros(256), LEVELS, 1e-3)
    assert bits.isfinite().all()
    assert (bits.diff() > 0).all()


class Palette:
    """Knows the four colours of pictures of 8 x 8 pixels, which are plain in each square of 4 x 4: it loses nothing,
    and its codes are as uniform as the pictures.
    """

    frame_size, bits_per_latent_step, device = (8, 8), 4 * 2.0, torch.device("cpu")
    quantizer = SimpleNamespace(codebook_size=4)
    colours = torch.tensor([[0, 0, 0], [255, 0, 0], [40, 90, 200], [255, 255, 255]], dtype=torch.uint8)

    def latent_length(self, frames: int) -> int:
        return frames

    def encode(self, frames: Tensor) -> Tensor:
        squares = frames[..., ::4, ::4].movedim(2, -1)
        return (squares[..., None, :] == self.colours).all(dim=-1).long().argmax(dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        frames = self.colours[codes].movedim(-1, 2) / 255
        return frames.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)


class Drawn:
    """Clips of one picture of a palette each."""

    length = 1

    def __init__(self, palette: Palette, count: int) -> None:
        codes = torch.randint(4, (count, 1, 2, 2), generator=torch.Generator().manual_seed(0))
        self.frames = to_uint8(palette.decode(codes))

    def __len__(self) -> int:
        return len(self.frames)

    def spread(self, count: int) -> Tensor:
        return torch.arange(count)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"frames": self.frames[index]}


def test_pictures_of_known_entropy_take_as_many_bits() -> None:
    """Four squares of one of four colours have eight bits, for 192 values: the bound is reached."""
    palette = Palette()
    clips = Drawn(palette, 50)
    sigma = error_spread(palette, clips)  # type: ignore[arg-type]
    assert sigma == 0
    figures = evaluate_tokenizer(palette, clips, 50, sigma=sigma)  # type: ignore[arg-type]
    assert figures["bits_per_dim"] == pytest.approx(8 / 192, abs=1e-9)
    assert figures["distortion_bits_per_dim"] == pytest.approx(0, abs=1e-9)


def test_the_field_of_codes_of_the_article_takes_its_share() -> None:
    model = VQVAEConfig(StridedConv(width=4, blocks=0, per_cell=10), EMAVQConfig(codebook_size=512)).build((32, 32))
    assert rate_per_dim(model, 1) == 1.875


def test_the_spread_is_that_of_training_episodes_where_there_are_some(tmp_path: Path) -> None:
    vqvae, store = tiny_vqvae(), tiny_store(tmp_path)
    assert spread_in_training(vqvae, store, 5) == error_spread(vqvae, Clips(store, "train", 5))
    assert spread_in_training(vqvae, store, 1001) is None


def test_the_terms_of_a_trained_tokenizer_add_up(tmp_path: Path) -> None:
    vqvae = tiny_vqvae()
    store = tiny_store(tmp_path)
    clips = Clips(store, "held_out", 5)
    figures = evaluate_tokenizer(vqvae, clips, 3, sigma=error_spread(vqvae, clips))
    assert figures["bits_per_dim"] == figures["distortion_bits_per_dim"] + figures["rate_bits_per_dim"]
    assert figures["distortion_bits_per_dim"] > 1
    assert "bits_per_dim" not in evaluate_tokenizer(vqvae, clips, 3)
