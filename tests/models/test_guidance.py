"""Guidance and action dropout: dreams with, without and against the actions."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from tiny_models import make_spec, shake, tiny_prior
from torch import Tensor

from vqvideo.errors import InputError
from vqvideo.models.prior import HeadConfig, Prior, PriorConfig, Sampling
from vqvideo.models.prior.backbone import Backbone
from vqvideo.models.prior.sampling import TokenSampler, entropy

HEADS: tuple[type, ...] = get_args(HeadConfig)


def guiding_prior(**settings: object) -> Prior:
    prior = tiny_prior(action_dropout=0.2, **settings)
    shake(prior, seed=1)
    return prior


def dream(prior: Prior, action: float, guidance: float, steps: int = 5) -> Tensor:
    """(steps, b, h, w) codes, likeliest codes only."""
    state = prior.start(torch.zeros(3, 1, *prior.spec.grid, dtype=torch.int64), torch.zeros(3, 0, 2, 1))
    how, generator = Sampling(temperature=0, guidance=guidance), torch.Generator().manual_seed(0)
    codes = []
    for _ in range(steps):
        step, state = prior.step(state, torch.full((3, 2, 1), action), how, generator)
        codes.append(step.codes)
    return torch.stack(codes)


@pytest.mark.parametrize("head", HEADS)
def test_without_guidance_the_actions_count_for_nothing(head: type) -> None:
    prior = guiding_prior(head=head())
    assert torch.equal(dream(prior, 1.0, guidance=0), dream(prior, 4.0, guidance=0))
    assert not torch.equal(dream(prior, 1.0, guidance=1), dream(prior, 4.0, guidance=1))
    assert not torch.equal(dream(prior, 1.0, guidance=3), dream(prior, 4.0, guidance=3))


@pytest.mark.parametrize("head", HEADS)
def test_almost_no_extra_guidance_is_no_extra_guidance(head: type) -> None:
    """Two passes that are combined as good as fully in favour of one give what that one alone gives."""
    prior = guiding_prior(head=head())
    assert torch.equal(dream(prior, 2.0, guidance=1 + 1e-6), dream(prior, 2.0, guidance=1))


def test_a_guided_code_comes_from_the_exaggerated_difference() -> None:
    known, blind = torch.tensor([[[0.0, 1.0, 1.2]]]), torch.tensor([[[0.0, 0.2, 1.2]]])
    pick = TokenSampler(Sampling(temperature=0, guidance=2.0))
    # 2 known - blind = [0, 1.8, 1.2]: the second code, though the third one leads in both.
    assert pick(torch.cat([known, blind])).tolist() == [[1], [1]]
    torch.testing.assert_close(pick.entropy, entropy(torch.tensor([[0.0, 1.8, 1.2]])))


def test_random_orders_are_the_same_with_and_without_the_actions() -> None:
    pick = TokenSampler(Sampling(guidance=2.0), torch.Generator().manual_seed(0))
    order = pick.order(6, 10, torch.device("cpu"))
    assert torch.equal(order[:3], order[3:])
    assert not torch.equal(order[0], order[1])
    assert torch.equal(order.sort(dim=1).values, torch.arange(10).expand(6, -1))


def test_hidden_actions_are_all_alike_and_unlike_any_known_one() -> None:
    prior = guiding_prior()
    codes = torch.randint(16, (2, 3, 4), generator=torch.Generator().manual_seed(0))
    one, two = torch.zeros(2, 3, 2, 1), torch.full((2, 3, 2, 1), 3.0)
    backbone: Backbone = prior.backbone
    known = torch.tensor([[True, False, True], [False, False, False]])
    with torch.no_grad():
        first, second = (backbone(codes, actions, known).tokens for actions in (one, two))
        shown = backbone(codes, one).tokens
    assert torch.equal(first[1], second[1])
    assert not torch.allclose(first[0, 0], second[0, 0])
    assert not torch.allclose(first[1], shown[1])


def test_training_hides_the_share_of_actions_that_is_asked_for() -> None:
    prior = Prior(PriorConfig(dim=32, heads=2, action_dropout=0.4), make_spec(), torch.randn(16, 4)).train()
    torch.manual_seed(0)
    known = prior._known(torch.zeros(4000, 8, 2, 1))
    assert known is not None
    assert (~known).float().mean().item() == pytest.approx(1 - 0.8 * 0.8, abs=0.02)
    assert (~known).all(dim=1).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert prior.eval()._known(torch.zeros(4, 8, 2, 1)) is None


def test_a_prior_that_never_missed_an_action_cannot_be_guided() -> None:
    prior = tiny_prior(action_dropout=0.0)
    assert not prior.can_guide
    for guidance in (0.0, 2.0):
        with pytest.raises(InputError, match="has never been without its actions"):
            dream(prior, 1.0, guidance)


@pytest.mark.parametrize("guidance", [-1.0, float("nan"), float("inf")])
def test_impossible_guidance_is_refused(guidance: float) -> None:
    with pytest.raises(InputError, match="guidance is"):
        Sampling(guidance=guidance)
