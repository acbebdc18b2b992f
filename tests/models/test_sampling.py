"""Choosing codes: the right distribution, the right support, the same choice for the same seed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vqvideo.errors import InputError
from vqvideo.models.prior import Sampling
from vqvideo.models.prior.sampling import TokenSampler, draw, draw_from_nucleus, entropy, keep_top_k, keep_top_p, sample

LOGITS = torch.tensor([2.0, 0.5, 0.0, -1.0, -3.0])


def draws(how: Sampling, count: int = 20_000, seed: int = 0, logits: Tensor = LOGITS) -> Tensor:
    return sample(logits.expand(count, -1), how, torch.Generator().manual_seed(seed))


def test_temperature_0_takes_the_likeliest_code_and_needs_no_randomness() -> None:
    logits = torch.randn(3, 4, 9)
    assert torch.equal(sample(logits, Sampling(temperature=0)), logits.argmax(dim=-1))


@pytest.mark.parametrize("top_p", [1e-300, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("top_k", [0, 1, 9, 10**9])
@pytest.mark.parametrize("temperature", [1e-320, 1e-45, 1e-38, 1e-30, 1e-8])
def test_temperatures_near_0_take_the_likeliest_code(temperature: float, top_k: int, top_p: float) -> None:
    logits = torch.randn(3, 4, 9, generator=torch.Generator().manual_seed(0)) * 20
    assert torch.equal(sample(logits, Sampling(temperature, top_k, top_p)), logits.argmax(dim=-1))


def test_a_temperature_near_0_leaves_the_choice_between_equal_codes_to_chance() -> None:
    assert set(draws(Sampling(temperature=1e-30), logits=torch.tensor([500.0, 500.0, 499.0])).tolist()) == {0, 1}


@pytest.mark.parametrize("temperature", [1e30, 1e300, math.inf])
def test_all_codes_are_alike_at_an_enormous_temperature(temperature: float) -> None:
    assert set(draws(Sampling(temperature, top_p=1.0)).tolist()) == set(range(5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("top_p", [1e-30, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [0, 1e-30, 1e-3, 1.0, math.inf])
def test_the_strongest_guidance_draws_codes_and_tells_their_entropy(
    temperature: float, top_p: float, dtype: torch.dtype
) -> None:
    sampler = TokenSampler(Sampling(temperature, top_p=top_p, guidance=1e6), torch.Generator().manual_seed(0))
    codes = sampler((torch.randn(8, 4, 9, generator=torch.Generator().manual_seed(0)) * 100).to(dtype))
    assert codes.min() >= 0
    assert codes.max() < 9
    assert sampler.entropy.isfinite().all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_codes_come_as_often_as_the_softmax_says(temperature: float) -> None:
    counts = torch.bincount(draws(Sampling(temperature=temperature, top_p=1.0)), minlength=5).double()
    expected = (LOGITS.double() / temperature).softmax(dim=-1) * 20_000
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 18.5  # the 99.9th percentile with 4 degrees of freedom


def test_tokens_of_a_step_are_drawn_independently() -> None:
    pairs = sample(torch.zeros(20_000, 2, 3), Sampling(top_p=1.0), torch.Generator().manual_seed(0))
    counts = torch.bincount(pairs[:, 0] * 3 + pairs[:, 1], minlength=9).double()
    assert ((counts - 20_000 / 9) ** 2 / (20_000 / 9)).sum() < 26.1  # 99.9 %, 8 degrees of freedom


@pytest.mark.parametrize(
    ("k", "support"), [(1, {0}), (2, {0, 1}), (4, {0, 1, 2, 3}), (5, set(range(5))), (99, set(range(5)))]
)
def test_top_k_keeps_the_k_likeliest_codes(k: int, support: set[int]) -> None:
    assert set(draws(Sampling(top_k=k, top_p=1.0)).tolist()) == support


@pytest.mark.parametrize(
    ("p", "support"), [(0.01, {0}), (0.69, {0}), (0.75, {0, 1}), (0.9, {0, 1, 2}), (1.0, set(range(5)))]
)
def test_top_p_keeps_the_smallest_set_that_holds_p(p: float, support: set[int]) -> None:
    """The probabilities are 0.703, 0.157, 0.095, 0.035 and 0.005 (cumulated 0.703, 0.86, 0.955)."""
    assert set(draws(Sampling(top_p=p)).tolist()) == support


def test_what_is_kept_keeps_its_proportions() -> None:
    for kept in (keep_top_k(LOGITS, 3), keep_top_p(LOGITS, 0.9)):
        assert torch.equal(kept[:3], LOGITS[:3])
        assert kept[3:].tolist() == [-math.inf, -math.inf]


def test_top_p_looks_at_the_codes_in_any_order() -> None:
    order = torch.tensor([3, 0, 4, 2, 1])
    assert torch.equal(keep_top_p(LOGITS[order], 0.9), keep_top_p(LOGITS, 0.9)[order])


def test_equal_seeds_draw_equal_codes() -> None:
    assert torch.equal(draws(Sampling()), draws(Sampling()))
    assert not torch.equal(draws(Sampling()), draws(Sampling(), seed=1))


def test_the_global_randomness_is_not_touched() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draws(Sampling())
    assert torch.equal(torch.get_rng_state(), before)


def test_half_precision_logits_are_drawn_in_full_precision() -> None:
    codes = draws(Sampling(top_p=1.0), logits=torch.zeros(1000, dtype=torch.bfloat16))
    assert len(codes.unique()) > 990


def test_entropy_is_log_k_for_equal_logits_and_0_for_certainty() -> None:
    assert entropy(torch.zeros(2, 7)).tolist() == pytest.approx([math.log(7)] * 2)
    assert entropy(torch.tensor([200.0, 0.0, 0.0])).item() == pytest.approx(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1, expected 0 or more"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0, expected more than 0 and at most 1"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_p": math.nan}, "top_p is nan"),
        ({"guidance": math.inf}, "guidance is inf, expected 0 .*, 1 .* or more, at most 1e[+]06"),
        ({"guidance": 1e30}, "guidance is 1e[+]30"),
        ({"guidance": -1.0}, "guidance is -1.0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**settings)  # type: ignore[arg-type]


def test_drawing_again_gives_the_distribution_that_sorting_gives() -> None:
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(0)) * 2
    kept = keep_top_p(logits, 0.8).softmax(dim=-1)[0].double()
    codes = draw_from_nucleus(logits.expand(20_000, -1).softmax(dim=-1), 0.8, torch.Generator().manual_seed(0))
    counts = torch.bincount(codes, minlength=40).double()
    inside = kept > 0
    assert counts[~inside].sum() == 0
    expected = kept[inside] * 20_000
    chi_square = ((counts[inside] - expected) ** 2 / expected).sum()
    freedom = int(inside.sum()) - 1
    assert chi_square < freedom + 3.1 * math.sqrt(2 * freedom) + 5  # about the 99.9th percentile


def test_a_code_without_probability_is_never_drawn() -> None:
    probability = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0]).expand(50_000, -1)
    assert set(draw(probability, torch.Generator().manual_seed(0)).tolist()) == {1, 3}


@pytest.mark.parametrize("p", [0.3, 0.9])
def test_rows_of_certain_and_of_flat_logits_can_stand_side_by_side(p: float) -> None:
    logits = torch.stack([torch.tensor([90.0, *[0.0] * 63]), torch.zeros(64)]).expand(500, -1, -1)
    codes = sample(logits, Sampling(top_p=p), torch.Generator().manual_seed(0))
    assert (codes[:, 0] == 0).all()
    assert len(codes[:, 1].unique()) > 15
