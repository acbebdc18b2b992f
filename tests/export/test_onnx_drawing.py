"""Random numbers that every language makes alike, and the codes that graphs draw from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vqvideo.export.graph_sampling import group_size, later_numbers, sampled
from vqvideo.export.noise import keys, noise, uniform
from vqvideo.models.prior.sampling import keep_top_p


def mixed(x: int) -> int:
    """The finaliser of MurmurHash3, in Python's own numbers."""
    x ^= x >> 16
    x = x * 0x85EBCA6B % 2**32
    x ^= x >> 13
    x = x * 0xC2B2AE35 % 2**32
    return x ^ x >> 16


def number(seed: int, step: int, place: int) -> int:
    """One number, as the description of the generator says."""
    key = mixed(mixed((seed % 2**32 + 0x9E3779B9) % 2**32) ^ seed >> 32)
    at = mixed(key ^ (step + 1) * 0x9E3779B9 % 2**32)
    return mixed(at ^ (place + 1) * 0x9E3779B9 % 2**32) >> 1


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 7, 2**53 - 1, 2**64 - 1])
def test_numbers_are_a_function_of_seed_step_and_place(seed: int) -> None:
    found = noise(keys([seed, 3]), np.array([0, 12]), 5)
    assert found.tolist() == [[number(seed, 0, i) for i in range(5)], [number(3, 12, i) for i in range(5)]]


def test_numbers_stay_what_they_are() -> None:
    """Pages in browsers make the same ones: a change here is a change there."""
    assert noise(keys([0]), np.array([0]), 3).tolist() == [[700515824, 378751454, 234389172]]


def test_numbers_are_spread_evenly_over_places_steps_and_seeds() -> None:
    u = uniform(noise(keys(range(50)), np.arange(50), 2000))
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.histogram(u, bins=20)[0]
    assert counts == pytest.approx(5000, abs=5 * 5000**0.5)
    assert abs(np.corrcoef(u[:, :-1].ravel(), u[:, 1:].ravel())[0, 1]) < 0.02


def drawn(logits: Tensor, p: Tensor, numbers: Tensor, temperature: float, top_p: float) -> Tensor:
    """As a graph draws."""
    how = torch.tensor(temperature), torch.tensor(top_p), group_size(p.shape[1])
    return sampled(logits, p, numbers, *how, *later_numbers())


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.0, 0.9), (0.5, 0.6), (2.0, 0.05), (1e-6, 0.9)])
@pytest.mark.parametrize("k", [24, 23])
def test_codes_come_as_often_as_their_probability_in_the_nucleus(k: int, temperature: float, top_p: float) -> None:
    logits = 2 * torch.randn(1, k, generator=torch.Generator().manual_seed(0))
    expected = keep_top_p(logits.double() / temperature, top_p).softmax(dim=-1)[0].numpy()
    count = 20_000
    numbers = torch.from_numpy(noise(keys([1]), np.array([0]), count)[0]).long()
    rows = logits.expand(count, -1)
    codes = drawn(rows, rows.softmax(-1), numbers, temperature, top_p)
    shares = np.bincount(codes.numpy(), minlength=k) / count
    assert shares == pytest.approx(expected, abs=5 * (0.25 / count) ** 0.5)
    assert (shares[expected == 0] == 0).all()


def test_temperature_0_takes_the_likeliest_code_and_the_first_of_equal_ones() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0]])
    codes = drawn(logits, logits.softmax(-1), torch.tensor([2**31 - 1]), 0.0, 0.9)
    assert codes.tolist() == [1]


def test_the_largest_number_never_leads_to_a_code_that_cannot_be() -> None:
    p = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    codes = drawn(p.log(), p, torch.tensor([2**31 - 1]), 1.0, 1.0)
    assert codes.tolist() == [1]
