"""Random numbers of rows that know nothing of each other: uniform, independent, and the same in any company."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from vqvideo.models.prior import Sampling
from vqvideo.models.prior.sampling import sample
from vqvideo.models.rows import RowStreams, uniform

CPU = torch.device("cpu")
MANY = 40_000
SIDE = 200
ALL = torch.tensor(True)


def streams(*seeds: int) -> RowStreams:
    """One row per seed, in its first event."""
    rows = RowStreams(len(seeds), CPU)
    rows.seed(torch.arange(len(seeds)), torch.tensor(seeds))
    rows.begin_event(ALL.expand(len(seeds)))
    return rows


@cache
def many_rows() -> Tensor:
    """The first number of many rows of consecutive seeds."""
    return streams(*range(MANY)).uniform((MANY,))


@cache
def many_places() -> Tensor:
    """All numbers of one call."""
    return streams(3).uniform((1, MANY))[0]


@cache
def many_calls() -> Tensor:
    """The numbers of many calls, one after the other."""
    rows = streams(*range(SIDE))
    return torch.cat([rows.uniform((SIDE,)) for _ in range(MANY // SIDE)])


@cache
def many_events() -> Tensor:
    """The first numbers of many events."""
    rows = streams(*range(SIDE))
    numbers = []
    for _ in range(MANY // SIDE):
        rows.begin_event(ALL.expand(SIDE))
        numbers.append(rows.uniform((SIDE,)))
    return torch.cat(numbers)


@cache
def many_again() -> Tensor:
    """What replaces the numbers of a call, time after time."""
    rows = streams(*range(SIDE))
    rows.uniform((SIDE,))
    return torch.cat([rows.uniform((SIDE,), again=torch.arange(SIDE)) for _ in range(MANY // SIDE)])


WAYS = [many_rows, many_places, many_calls, many_events, many_again]


# ---------------------------------------------------------------- uniform


@pytest.mark.parametrize("numbers", WAYS)
def test_numbers_are_uniform(numbers: Callable[[], Tensor]) -> None:
    """Bounds at 6 standard deviations; 99 degrees of freedom of the chi-square have mean 99 and deviation 14."""
    u = numbers()
    assert u.dtype == torch.float64
    assert ((u >= 0) & (u < 1)).all()
    assert len(u.unique()) == MANY
    assert abs(u.mean() - 1 / 2) < 6 * (1 / 12 / MANY) ** 0.5
    assert abs(u.square().mean() - 1 / 3) < 6 * (4 / 45 / MANY) ** 0.5
    counts = torch.histc(u, 100, 0, 1)
    assert ((counts - MANY / 100).square() / (MANY / 100)).sum() < 99 + 6 * 14


@pytest.mark.parametrize("numbers", WAYS)
@pytest.mark.parametrize("apart", [1, 2, SIDE])
def test_neighbouring_numbers_do_not_hang_together(numbers: Callable[[], Tensor], apart: int) -> None:
    u = numbers()
    assert abs(correlation(u[:-apart], u[apart:])) < 6 * MANY**-0.5
    # Together they fill the square: 16 x 16 cells, 255 degrees of freedom with a deviation of 23.
    cells = ((u[:-apart] * 16).long() * 16 + (u[apart:] * 16).long()).bincount(minlength=256)
    expected = (MANY - apart) / 256
    assert ((cells - expected).square() / expected).sum() < 255 + 6 * 23


def test_every_bit_of_the_first_32_is_as_often_0_as_1() -> None:
    u = many_rows()
    bits = torch.stack([(u * 2**k).long() % 2 for k in range(1, 33)]).double()
    assert ((bits.mean(dim=1) - 1 / 2).abs() < 6 * 0.5 * MANY**-0.5).all()


def correlation(a: Tensor, b: Tensor) -> Tensor:
    return torch.corrcoef(torch.stack([a, b]))[0, 1]


# ---------------------------------------------------------------- independent


def test_rows_calls_events_and_places_all_have_other_numbers() -> None:
    rows = streams(0, 1, 2)
    numbers = [
        rows.uniform((3, 500)),
        rows.uniform((3, 500)),
        rows.uniform((3, 500), again=torch.arange(1500)).reshape(3, 500),
    ]
    rows.begin_event(ALL.expand(3))
    numbers += [rows.uniform((3, 500))]
    every = torch.cat(numbers)
    assert len(every.unique()) == every.numel()
    off = torch.corrcoef(every) - torch.eye(len(every))
    assert off.abs().max() < 6 * 500**-0.5


@pytest.mark.parametrize("shape", [(), (7,), (5, 3)])
def test_a_row_has_the_same_numbers_in_any_company(shape: tuple[int, ...]) -> None:
    alone, beside = streams(5), streams(8, 5, 1, 5)
    for _ in range(3):
        one, four = alone.uniform((1, *shape)), beside.uniform((4, *shape))
        assert torch.equal(four[1], one[0])
        assert torch.equal(four[3], one[0])
        assert not torch.equal(four[0], one[0])


def test_only_the_rows_to_which_something_happens_move_on() -> None:
    rows, other = streams(5, 6), streams(5, 6)
    for mask in ([True, False], [True, True], [True, False]):
        rows.begin_event(torch.tensor(mask))
    for _ in range(3):
        other.begin_event(ALL.expand(2))
    mixed, plain = rows.uniform((2, 9)), other.uniform((2, 9))
    assert torch.equal(mixed[0], plain[0])
    assert not torch.equal(mixed[1], plain[1])
    again = streams(5, 6)
    again.begin_event(ALL.expand(2))
    assert torch.equal(mixed[1], again.uniform((2, 9))[1])


def test_seeding_rows_begins_their_streams_again_and_leaves_the_others() -> None:
    rows, other = streams(5, 6, 7), streams(5, 6, 7)
    rows.seed(torch.tensor([2, 0]), torch.tensor([5, 9]))
    for one in (rows, other):
        one.begin_event(ALL.expand(3))
    mixed, plain = rows.uniform((3, 9)), other.uniform((3, 9))
    assert torch.equal(mixed[1], plain[1])
    assert torch.equal(mixed[2], streams(5).uniform((1, 9))[0])
    assert torch.equal(mixed[0], streams(9).uniform((1, 9))[0])


def test_drawing_again_does_not_shift_the_calls_that_follow() -> None:
    rows, other = streams(1, 2), streams(1, 2)
    first = rows.uniform((2, 9))
    others = [rows.uniform((2, 9), again=torch.arange(18)).reshape(2, 9) for _ in range(3)]
    other.uniform((2, 9))
    second = rows.uniform((2, 9))
    assert torch.equal(second, other.uniform((2, 9)))
    assert len(torch.stack([first, *others, second]).unique()) == 5 * 18


def test_the_hash_is_that_of_splitmix64() -> None:
    """The first number that the reference implementation gives for seed 1234567."""
    assert int(streams(1234567).keys) % 2**64 == 6457827717110365317


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63)])
def test_any_whole_number_of_64_bits_is_a_seed(seed: int) -> None:
    u = streams(seed, 1).uniform((2, 1000))
    assert abs(u.mean() - 0.5) < 0.05
    assert not torch.equal(u[0], u[1])


def test_another_number_of_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="2 rows of random numbers from 3 streams"):
        streams(0, 1, 2).uniform((2, 5))


# ---------------------------------------------------------------- any source


def test_numbers_for_some_places_are_those_of_the_whole_draw() -> None:
    at = torch.tensor([4, 0, 7])
    rows, other = streams(1, 2), streams(1, 2)
    uniform((2, 4), rows, CPU)
    other.uniform((2, 4))
    assert torch.equal(uniform((2, 4), rows, CPU, at), other.uniform((2, 4), again=torch.arange(8))[at])


def test_a_generator_serves_the_whole_batch() -> None:
    one, two = (torch.Generator().manual_seed(4) for _ in range(2))
    assert torch.equal(uniform((2, 4), one, CPU), torch.rand((2, 4), generator=two, dtype=torch.float64))
    some = uniform((2, 4), one, CPU, torch.tensor([1, 6, 3]))
    assert torch.equal(some, torch.rand(3, generator=two, dtype=torch.float64))
    assert uniform((2, 4), None, CPU).shape == (2, 4)


# ---------------------------------------------------------------- sampling


LOGITS = torch.randn(4, 25, 32, generator=torch.Generator().manual_seed(0)) * 2


@pytest.mark.parametrize(
    "how", [Sampling(top_p=0.6), Sampling(top_p=0.3), Sampling(top_p=1), Sampling(top_k=5, temperature=0.7)]
)
def test_what_a_row_draws_does_not_depend_on_the_rows_beside_it(how: Sampling) -> None:
    together = sample(LOGITS, how, streams(3, 4, 5, 6))
    for i, seed in enumerate((3, 4, 5, 6)):
        assert torch.equal(sample(LOGITS[i : i + 1], how, streams(seed))[0], together[i])
    company = torch.cat([LOGITS[2:3], LOGITS[:1], -LOGITS[:2]])
    assert torch.equal(sample(company, how, streams(5, 3, 0, 1))[:2], together[[2, 0]])


def test_the_calls_after_a_draw_do_not_depend_on_how_often_it_was_rejected() -> None:
    """Flat logits of many codes are often outside the nucleus, a certain code never."""
    flat, certain = torch.zeros(1, 25, 32), torch.zeros(1, 25, 32).index_fill(2, torch.tensor([3]), 99.0)
    rows, other = streams(3), streams(3)
    sample(flat + LOGITS[:1], Sampling(top_p=0.5), rows)
    sample(certain, Sampling(top_p=0.5), other)
    assert torch.equal(rows.uniform((1, 9)), other.uniform((1, 9)))
