"""From the places of a step to what reward and termination are read from."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from tiny_models import make_spec

from vqvideo.errors import InputError
from vqvideo.models import class_of
from vqvideo.models.prior import (
    AttentionPoolingConfig,
    DrawnPoolingConfig,
    MeanPoolingConfig,
    PoolingConfig,
    Prior,
    PriorConfig,
    Sampling,
)
from vqvideo.models.prior.outcomes import RewardHead, SymlogRewardHead, termination_loss

KINDS = get_args(PoolingConfig)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_the_places_does_not_matter(kind: type[PoolingConfig]) -> None:
    torch.manual_seed(0)
    pool, places = class_of(kind(), "prior")(kind(), 16), torch.randn(2, 3, 9, 16)
    drawn, other = torch.randn(2, 3, 9, 16), torch.randperm(9)
    pooled = pool(places, drawn)
    assert pooled.shape == (2, 3, 16)
    torch.testing.assert_close(pool(places[:, :, other], drawn[:, :, other]), pooled, atol=1e-5, rtol=0)


def test_attention_finds_one_place_among_many_and_a_mean_drowns_it() -> None:
    """The one place that matters, among 64, decides; the same number of steps for both."""

    def error(config: PoolingConfig) -> float:
        torch.manual_seed(0)
        pool, out = class_of(config, "prior")(config, 16), torch.nn.Linear(16, 1)
        optimizer = torch.optim.Adam([*pool.parameters(), *out.parameters()], lr=1e-2)
        for _ in range(150):
            places = torch.randn(64, 1, 64, 16)
            target = (torch.rand(64, 1) < 0.5).float()
            # Marked by one feature, told by the next.
            places[:, 0, 0, 0], places[:, 0, 0, 1] = 8.0, 8 * target[:, 0] - 4
            loss = torch.nn.functional.binary_cross_entropy_with_logits(out(pool(places))[..., 0], target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    assert error(AttentionPoolingConfig()) < 0.1
    assert error(MeanPoolingConfig()) > 0.3


def test_what_was_drawn_decides_what_is_earned_where_chance_decides_what_is_drawn() -> None:
    """A step that may go either way: from the places alone nobody can tell, from the drawn tokens anybody."""

    def told(kind: type[PoolingConfig]) -> float:
        torch.manual_seed(0)
        cfg = PriorConfig(dim=32, heads=2, layers=2, pooling=kind(), reward_weight=3.0, corruption=0.0)
        prior = Prior(cfg, make_spec(), torch.randn(16, 4))
        optimizer = torch.optim.Adam(prior.parameters(), lr=3e-3)
        before, actions, ends = torch.zeros(64, 1, 2, 2).long(), torch.zeros(64, 1, 2, 1), torch.zeros(64, 1).bool()
        for _ in range(100):
            codes = torch.zeros(64, 2, 2, 2).long()
            codes[:, 1, 0, 0] = torch.rand(64) < 0.5
            loss = prior(codes, actions, codes[:, 1:, 0, 0].float(), ends).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        prior.eval()
        step, _ = prior.step(prior.start(before, actions[:, :0]), actions[:, 0], Sampling(top_p=1.0))
        fell = (step.codes[:, 0, 0] == 1).float()
        assert 0.2 < fell.mean() < 0.8
        return float((step.reward - fell).abs().mean())

    assert told(DrawnPoolingConfig) < 0.1
    assert told(AttentionPoolingConfig) > 0.3


def test_queries_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(InputError, match=r"prior\.pooling\.queries is 3, expected a divisor of prior.dim 32"):
        Prior(PriorConfig(dim=32, heads=2, pooling=AttentionPoolingConfig(queries=3)), make_spec(), torch.zeros(16, 4))


def test_steps_of_weight_nothing_do_not_count_and_heavier_ones_count_more() -> None:
    head = RewardHead(4, -1.0, 3.0)
    torch.manual_seed(0)
    logits, rewards = torch.randn(1, 2, 64), torch.tensor([[0.0, 2.0]])
    only_first = head.loss(logits, rewards, torch.tensor([[2.0, 0.0]]))
    torch.testing.assert_close(only_first, head.loss(logits[:, :1], rewards[:, :1]))
    ends, said = torch.tensor([[False, True]]), torch.tensor([[0.3, -1.0]])
    assert termination_loss(said, ends, torch.tensor([[0.5, 1.5]])) > termination_loss(said, ends)


def test_no_reward_is_one_bin_and_not_two_halves() -> None:
    head = RewardHead(4, -1.0, 1.0)
    assert (head.bins == 0).sum() == 1
    assert (head.bins.diff() > 0).all()
    certain = torch.full((1, 1, 64), -50.0)
    certain[..., int((head.bins == 0).nonzero())] = 50
    assert head.loss(certain, torch.zeros(1, 1)) < 1e-6
    assert (RewardHead(4, 1.0, 3.0).bins > 0).all()


@pytest.mark.parametrize("head", [RewardHead, SymlogRewardHead])
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, -3.0, 1e-9, 1e30])
def test_a_reward_that_never_varied_is_expected_exactly(head: type[RewardHead], reward: float) -> None:
    outcome = head(4, reward, reward)
    logits = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(outcome.mean(logits), torch.full((2, 3), reward), rtol=0, atol=0)
    assert outcome.loss(logits, torch.full((2, 3), reward)).isfinite()
