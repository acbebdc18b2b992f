"""Losses: means over elements, in units of the data, and the numbers that two-hot targets stand for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqvideo.errors import InputError
from vqvideo.models.prior.outcomes import symexp, symlog, two_hot
from vqvideo.models.tokenizer import ReconstructionConfig
from vqvideo.models.tokenizer.losses import reconstruction_loss

PLAIN = ReconstructionConfig()
EVERYTHING = ReconstructionConfig(l1=0.1, difference=0.5, moving=2.0, worst=0.1)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"l1": 0.0}, 10 / 8 / 4),
        ({"l1": 0.1}, 10 / 8 / 4 + 0.1 * 4 / 8 / 2),
        ({"l1": 0.0, "difference": 2.0}, (10 / 8 + 2 * (1 + 9) / 4) / 4),
        ({"l1": 0.0, "worst": 3.0}, (10 / 8 + 3 * (0 + 9) / 2) / 4),
    ],
)
def test_the_reconstruction_loss_is_its_formula(weights: dict[str, float], expected: float) -> None:
    target = torch.zeros(1, 2, 1, 2, 2)
    predicted = torch.zeros(1, 2, 1, 2, 2)
    predicted[0, 1, 0] = torch.tensor([[0.0, 1.0], [0.0, -3.0]])
    cfg = ReconstructionConfig(**{"difference": 0.0, **weights})
    loss = reconstruction_loss(predicted, target, torch.tensor(4.0), cfg)
    assert loss.item() == pytest.approx(expected)


def test_moving_pixels_count_more_and_others_do_not() -> None:
    target = torch.zeros(1, 2, 3, 2, 2)
    target[0, 1, :, 0, 0] = 0.5
    cfg = ReconstructionConfig(l1=0, difference=0, moving=4.0)
    moving, resting = target.clone(), target.clone()
    moving[0, 1, :, 0, 0] += 1
    resting[0, 1, :, 1, 1] += 1
    on, off = (reconstruction_loss(p, target, torch.tensor(1.0), cfg).item() for p in (moving, resting))
    assert on == pytest.approx(5 * off)


@pytest.mark.parametrize("term", ["difference", "moving"])
def test_terms_about_change_leave_a_still_alone(term: str) -> None:
    predicted, target = torch.randn(2, 2, 1, 3, 4, 4)
    with_term = reconstruction_loss(predicted, target, torch.tensor(1.0), ReconstructionConfig(**{term: 5.0}))
    torch.testing.assert_close(with_term, reconstruction_loss(predicted, target, torch.tensor(1.0), PLAIN))


@pytest.mark.parametrize("frames", [1, 3])
def test_the_gradient_of_the_reconstruction_loss_is_that_of_its_formula(frames: int) -> None:
    target, start = torch.randn(2, 2, frames, 3, 4, 4, dtype=torch.float64)
    predicted, variance = start.clone().requires_grad_(), torch.tensor(0.3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: 3 * reconstruction_loss(p, target, variance, EVERYTHING), (predicted,))


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(InputError, match=r"reconstruction\.worst is -1"):
        ReconstructionConfig(worst=-1)


def test_the_reconstruction_loss_is_a_mean() -> None:
    predicted, target = torch.randn(2, 3, 3, 3, 8, 8)
    variance = torch.tensor(0.3)
    one, many = (
        reconstruction_loss(predicted.repeat(n, 1, 1, 1, 1), target.repeat(n, 1, 1, 1, 1), variance, EVERYTHING)
        for n in (1, 5)
    )
    torch.testing.assert_close(one, many)


def test_the_reconstruction_loss_does_not_depend_on_the_units_of_the_data() -> None:
    predicted, target = torch.randn(2, 2, 2, 3, 8, 8)
    cfg = ReconstructionConfig(l1=0.1, difference=0.5, worst=0.1)
    dark, bright = (
        reconstruction_loss(scale * predicted, scale * target, torch.tensor(scale**2), cfg) for scale in (0.1, 1.0)
    )
    torch.testing.assert_close(dark, bright)


def test_symlog_has_its_known_values_and_keeps_signs() -> None:
    x = torch.tensor([-(torch.e - 1), 0.0, torch.e - 1, torch.e**3 - 1])
    torch.testing.assert_close(symlog(x), torch.tensor([-1.0, 0.0, 1.0, 3.0]))


@given(st.floats(-1e4, 1e4, width=32))
def test_symexp_undoes_symlog(x: float) -> None:
    value = torch.tensor(x, dtype=torch.float64)
    torch.testing.assert_close(symexp(symlog(value)), value, rtol=1e-9, atol=1e-12)


@given(st.lists(st.floats(-6, 6, width=32), min_size=1, max_size=8))
def test_two_hot_weights_stand_for_their_number(values: list[float]) -> None:
    bins = torch.linspace(-5, 5, 21)
    x = torch.tensor(values)
    weights = two_hot(x, bins)
    assert weights.shape == (len(values), 21)
    assert (weights >= 0).all()
    assert ((weights > 0).sum(dim=-1) <= 2).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(len(values)))
    torch.testing.assert_close(weights @ bins, x.clamp(-5, 5), atol=1e-5, rtol=0)


def test_two_hot_puts_a_number_between_its_neighbours_also_when_bins_are_uneven() -> None:
    weights = two_hot(torch.tensor([[-1.0, 0.5], [4.0, 99.0]]), torch.tensor([-1.0, 0.0, 2.0, 6.0]))
    expected = [[[1, 0, 0, 0], [0, 0.75, 0.25, 0]], [[0, 0, 0.5, 0.5], [0, 0, 0, 1]]]
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float32))
