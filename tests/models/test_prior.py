"""The prior: causality, cache equal to no cache, actions that matter, and what it can learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, get_args

import pytest
import torch
from gymnasium import spaces
from tiny_models import FIVE, make_spec, shake, tiny_prior
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from vqvideo.errors import InputError
from vqvideo.models.prior import (
    ActionStats,
    ConditioningConfig,
    HeadConfig,
    ParallelHeadConfig,
    PoolingConfig,
    Prior,
    PriorConfig,
    PriorSpec,
    PriorState,
    RewardHead,
    Sampling,
    TokenConfig,
)
from vqvideo.models.prior.outcomes import SymlogRewardHead
from vqvideo.models.prior.sampling import TokenSampler
from vqvideo.spaces import ActionSpace
from vqvideo.storage.records import kind_of

GREEDY = Sampling(temperature=0)
HEADS: tuple[HeadConfig, ...] = tuple(cls() for cls in get_args(HeadConfig))
CONDITIONINGS: tuple[ConditioningConfig, ...] = tuple(cls() for cls in get_args(ConditioningConfig))
VARIANTS: list[dict[str, Any]] = [
    *({"head": head} for head in HEADS),
    *({"conditioning": conditioning} for conditioning in CONDITIONINGS),
    *({"head": head, "conditioning": TokenConfig(), "patch": 2, "dim": 64, "heads": 4} for head in HEADS),
]
VARIANT_NAMES = ["-".join(kind_of(type(v)) if is_dataclass(v) else str(v) for v in s.values()) for s in VARIANTS]


def random_clip(prior: Prior, batch: int, steps: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Codes (b, t, h, w) and actions (b, t - 1, s, a) with five discrete actions."""
    generator = torch.Generator().manual_seed(seed)
    spec = prior.spec
    codes = torch.randint(spec.codebook_size, (batch, steps, *spec.grid), generator=generator)
    actions = torch.randint(5, (batch, steps - 1, spec.stride, spec.action_space.size), generator=generator)
    return codes, actions.float()


@torch.no_grad()
def uncached(prior: Prior, codes: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (b, t - 1, n, k) as in training, expected rewards and probabilities of termination (b, t - 1)."""
    nothing = torch.zeros(actions.shape[:2])
    projected = []
    hook = prior.head.norm.register_forward_hook(lambda module, given, normed: projected.append(normed))
    output = prior(codes, actions, nothing, nothing.bool())
    hook.remove()
    return prior.head.out(projected[-1]), output.reward, output.termination.sigmoid()


class Forced(TokenSampler):
    """Hands out the true codes (b, n) instead of drawing, tokens in raster order, and keeps the logits."""

    def __init__(self, truth: Tensor) -> None:
        super().__init__(GREEDY)
        self.revises = False
        self.truth, self.asked, self.places = truth, [], torch.arange(truth.shape[1])

    def draw(self, x: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
        return self(logits(x))

    def __call__(self, logits: Tensor) -> Tensor:
        super().__call__(logits)
        place = sum(part.shape[1] for part in self.asked)
        self.asked.append(logits)
        return self.truth[:, place : place + logits.shape[1]]

    def order(self, rows: int, n: int, device: torch.device) -> Tensor:
        return torch.arange(n).expand(rows, n)

    @property
    def logits(self) -> Tensor:
        """(b, n, k)."""
        return torch.cat(self.asked, dim=1)


@torch.no_grad()
def logits_of_whole_clips(prior: Prior, codes: Tensor, actions: Tensor) -> Tensor:
    """(b, t - 1, n, k): what the head asks of its picker step by step, after one uncached pass of the backbone."""
    flat = codes.flatten(2)
    hidden = prior.backbone(flat[:, :-1], actions)
    picks = [Forced(flat[:, k + 1]) for k in range(actions.shape[1])]
    for k, pick in enumerate(picks):
        prior.head.sample(hidden.tokens[:, k], pick)
    return torch.stack([pick.logits for pick in picks], dim=1)


def logits_of_steps(
    prior: Prior, codes: Tensor, actions: Tensor, context: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, rewards and terminations of the steps after the context, by `start` and `step` along the true codes."""
    picks: list[Forced] = []
    truth = iter(codes.flatten(2)[:, context:].unbind(1))

    def forced(how: Sampling, generator: torch.Generator | None) -> TokenSampler:
        picks.append(Forced(next(truth)))
        return picks[-1]

    monkeypatch.setattr("vqvideo.models.prior.prior.TokenSampler", forced)
    steps = []
    state = prior.start(codes[:, :context], actions[:, : context - 1])
    for k in range(context, codes.shape[1]):
        step, state = prior.step(state, actions[:, k - 1], GREEDY)
        assert torch.equal(state.codes, codes[:, k])
        steps.append(step)
    reward, termination = (torch.stack([getattr(s, name) for s in steps], dim=1) for name in ("reward", "termination"))
    return torch.stack([pick.logits for pick in picks], dim=1), reward, termination


# ---------------------------------------------------------------- cache


@pytest.mark.parametrize("settings", VARIANTS, ids=VARIANT_NAMES)
@pytest.mark.parametrize("window", [1, 3, 4, 20])
def test_cached_steps_equal_the_uncached_pass_also_beyond_the_window(
    settings: dict[str, Any], window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = tiny_prior(window=window, **settings)
    codes, actions = random_clip(prior, 2, 12)
    whole = logits_of_whole_clips(prior, codes, actions), *uncached(prior, codes, actions)[1:]
    assert whole[0].std() > 0.3
    for context in {1, min(2, window), min(5, window)}:
        found = logits_of_steps(prior, codes, actions, context, monkeypatch)
        for one, two in zip(whole, found, strict=True):
            # Deep heads with weights that large round differently in the fourth digit.
            torch.testing.assert_close(two, one[:, context - 1 :], atol=5e-4, rtol=5e-4)


def test_what_lies_further_back_than_the_windows_reach_is_forgotten() -> None:
    prior = tiny_prior(window=3, layers=4)
    codes, actions = random_clip(prior, 1, 12)
    reach = 1 + 2 * (3 - 1)  # two temporal layers
    other = codes.clone()
    other[:, 12 - 1 - reach - 1] = (codes[:, 12 - 1 - reach - 1] + 1) % 16
    logits, changed = (logits_of_whole_clips(prior, one, actions) for one in (codes, other))
    assert torch.equal(logits[:, -1], changed[:, -1])
    assert not torch.allclose(logits[:, -2], changed[:, -2])


def test_a_state_is_not_changed_and_can_be_forked() -> None:
    prior = tiny_prior(window=6)
    codes, actions = random_clip(prior, 2, 6)
    state = prior.start(codes, actions)
    before = tree_map_only(Tensor, Tensor.clone, state)
    left, left_state = prior.step(state, torch.zeros(2, 2, 1), GREEDY)
    prior.step(left_state, torch.ones(2, 2, 1), GREEDY)
    right, _ = prior.step(state, torch.full((2, 2, 1), 4.0), GREEDY)
    again, _ = prior.step(state, torch.zeros(2, 2, 1), GREEDY)
    assert all(torch.equal(a, b) for a, b in zip(_tensors(before), _tensors(state), strict=True))
    assert torch.equal(left.codes, again.codes)
    assert torch.equal(left.entropy, again.entropy)
    assert not torch.equal(left.entropy, right.entropy)


def _tensors(state: PriorState) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)]


def test_the_memory_of_a_dream_does_not_grow() -> None:
    prior = tiny_prior(window=3)
    state = prior.start(*random_clip(prior, 1, 1))
    shapes = [tensor.shape for tensor in _tensors(state)]
    for _ in range(10):
        _, state = prior.step(state, torch.zeros(1, 2, 1), GREEDY)
    assert [tensor.shape for tensor in _tensors(state)] == shapes


# ---------------------------------------------------------------- time


@pytest.mark.parametrize("settings", VARIANTS, ids=VARIANT_NAMES)
def test_future_codes_and_actions_cannot_change_earlier_predictions(settings: dict[str, Any]) -> None:
    prior = tiny_prior(window=20, **settings)
    codes, actions = random_clip(prior, 2, 8)
    other_codes, other_actions = random_clip(prior, 2, 8, seed=1)
    for k in range(1, 7):
        mixed = torch.cat([codes[:, :k], other_codes[:, k:]], dim=1)
        mixed_actions = torch.cat([actions[:, :k], other_actions[:, k:]], dim=1)
        torch.manual_seed(0)
        one = uncached(prior, codes, actions)
        torch.manual_seed(0)
        two = uncached(prior, mixed, mixed_actions)
        # A head that draws tokens one after the other is shown those of the very step that it predicts.
        own = 0 if isinstance(prior.cfg.head, ParallelHeadConfig) else 1
        for before, after, reach in zip(one, two, (k - own, k, k), strict=True):
            torch.testing.assert_close(before[:, :reach], after[:, :reach], atol=1e-5, rtol=1e-5)


def test_a_prediction_never_sees_the_codes_that_it_predicts() -> None:
    prior = tiny_prior()
    codes, actions = random_clip(prior, 1, 4)
    other = codes.clone()
    other[:, -1] = (codes[:, -1] + 1) % 16
    assert torch.equal(uncached(prior, codes, actions)[0], uncached(prior, other, actions)[0])


@pytest.mark.parametrize("frame", [0, 1])
@pytest.mark.parametrize("conditioning", CONDITIONINGS, ids=[kind_of(type(c)) for c in CONDITIONINGS])
def test_each_action_of_a_step_changes_its_own_prediction_and_none_before(
    frame: int, conditioning: ConditioningConfig
) -> None:
    prior = tiny_prior(conditioning=conditioning)
    codes, actions = random_clip(prior, 2, 7)
    for k in range(6):
        other = actions.clone()
        other[:, k, frame] = (actions[:, k, frame] + 1) % 5
        for one, two in zip(uncached(prior, codes, actions), uncached(prior, codes, other), strict=True):
            torch.testing.assert_close(one[:, :k], two[:, :k], atol=1e-5, rtol=1e-5)
            assert (one[:, k] - two[:, k]).abs().amin(dim=0).max() > 1e-4


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("settings", VARIANTS, ids=VARIANT_NAMES)
@pytest.mark.parametrize("pooling", [kind() for kind in get_args(PoolingConfig)], ids=lambda p: kind_of(type(p)))
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_every_parameter_that_can_learn_gets_a_gradient(
    settings: dict[str, Any], pooling: PoolingConfig, noise: float
) -> None:
    """Data-parallel training ends with an error where a parameter gets none."""
    torch.manual_seed(0)
    settings = {"dim": 32, "heads": 2, "corruption": noise, "action_dropout": noise, "pooling": pooling} | settings
    prior = Prior(PriorConfig(**settings), make_spec(grid=(4, 2)), torch.randn(16, 4))
    shake(prior)
    codes, actions = random_clip(prior, 8, 4)
    prior(codes, actions, torch.rand(8, 3), torch.rand(8, 3) < 0.5).loss.backward()
    learning = {name: p.grad for name, p in prior.named_parameters() if p.requires_grad}
    assert [name for name, gradient in learning.items() if gradient is None or not gradient.any()] == []
    assert ("backbone.actions.unknown" in learning) == (noise > 0)


def test_the_context_is_corrupted_in_training_only() -> None:
    prior = tiny_prior(corruption=0.9, action_dropout=0.0)
    codes, actions = random_clip(prior, 4, 6)
    clean = uncached(prior, codes, actions)[0]
    assert torch.equal(clean, uncached(prior, codes, actions)[0])
    prior.train()
    torch.manual_seed(0)
    noisy = uncached(prior, codes, actions)[0]
    torch.manual_seed(0)
    assert torch.equal(noisy, uncached(prior, codes, actions)[0])
    assert not torch.equal(noisy, clean)
    assert torch.equal(clean, uncached(tiny_prior(corruption=0.0, action_dropout=0.0).train(), codes, actions)[0])


@pytest.mark.parametrize("head", [kind() for kind in get_args(HeadConfig)], ids=lambda head: kind_of(type(head)))
def test_the_context_is_drawn_by_the_prior_itself_in_training_only(head: HeadConfig) -> None:
    prior = tiny_prior(corruption=0.0, action_dropout=0.0, own_draws=0.5, head=head)
    codes, actions = random_clip(prior, 64, 5)
    flat = codes.flatten(2)[:, :-1]
    known = prior._known(actions)
    assert torch.equal(prior._with_own_draws(flat, actions, known), flat)
    prior.train()
    torch.manual_seed(0)
    shown = prior._with_own_draws(flat, actions, known)
    assert shown.shape == flat.shape
    assert torch.equal(shown[:, 0], flat[:, 0]), "nothing led to the first step"
    changed = (shown != flat).any(dim=2)[:, 1:]
    assert 0.35 < changed.double().mean() < 0.6, "whole steps are drawn, of which few equal the real ones"
    assert not shown.requires_grad


def test_what_the_prior_draws_for_the_context_is_what_it_would_dream() -> None:
    prior = tiny_prior(corruption=0.0, action_dropout=0.0, own_draws=0.99)
    with torch.no_grad():
        prior.head.out.weight.mul_(1000)  # so sure that every draw is the likeliest code
    codes, actions = random_clip(prior, 8, 4)
    hidden = prior.backbone(codes.flatten(2)[:, :2], actions[:, :2], None)
    likeliest = prior.head.logits(hidden.tokens).argmax(-1)
    prior.train()
    shown = prior._with_own_draws(codes.flatten(2)[:, :3], actions, None)[:, 1:]
    assert (shown == likeliest).double().mean() > 0.9


def counter_clips(batch: int, steps: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Two counters modulo 8: the action is added to the first one and subtracted from the second one. The
    reward is the action, and the episode "ends" when the first counter comes to 0.
    """
    actions = torch.randint(3, (batch, steps - 1, 1, 1), generator=generator)
    first = torch.randint(8, (batch, 1, 1, 2), generator=generator)
    sign = torch.tensor([1, -1])
    codes = torch.cat([first, first + actions.cumsum(dim=1) * sign], dim=1) % 8
    ends = codes[:, 1:, 0, 0] == 0
    return {"codes": codes, "actions": actions.float(), "rewards": actions[..., 0, 0].float(), "terminated": ends}


@pytest.fixture(scope="module")
def counter() -> Prior:
    """A prior that has learnt `counter_clips`."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    three = ActionSpace.from_gymnasium(spaces.Discrete(3))
    spec = PriorSpec((1, 2), 8, 3, 1, three, ActionStats((1.0,), (0.8,), 0.0, 2.0), "")
    cfg = PriorConfig(dim=32, heads=2, layers=2, window=3, corruption=0.0, action_dropout=0.0)
    prior = Prior(cfg, spec, torch.randn(8, 3))
    optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=300)
    for _ in range(300):
        prior(**counter_clips(32, 5, generator)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return prior.eval()


def test_a_deterministic_world_is_learnt_to_nearly_no_loss(counter: Prior) -> None:
    with torch.no_grad():
        clips = counter_clips(64, 6, torch.Generator().manual_seed(1))
        output = counter(**clips)
    assert output.metrics["token_nats"] < 0.02
    assert output.metrics["top1"].item() == pytest.approx(1)
    torch.testing.assert_close(output.reward, clips["rewards"], atol=0.1, rtol=0)
    assert torch.equal(output.termination > 0, clips["terminated"])


def test_other_actions_dream_other_futures(counter: Prior) -> None:
    start = torch.tensor([[[[3, 5]]]]).expand(3, -1, -1, -1)
    state = counter.start(start, torch.zeros(3, 0, 1, 1))
    action = torch.tensor([0.0, 1.0, 2.0]).reshape(3, 1, 1)
    dreamt = []
    for _ in range(10):
        step, state = counter.step(state, action, Sampling(), torch.Generator().manual_seed(0))
        dreamt.append(step.codes[:, 0])
        torch.testing.assert_close(step.reward, action[:, 0, 0], atol=0.1, rtol=0)
        assert step.entropy.max() < 0.3
    k = torch.arange(1, 11)
    shift = torch.stack([k, -k], dim=-1) * torch.tensor([0, 1, 2]).reshape(3, 1, 1)
    assert torch.equal(torch.stack(dreamt, dim=1), (torch.tensor([3, 5]) + shift) % 8)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-100.0, 1000.0), (0.0, 1e5), (-3.0, -2.0)])
def test_the_mean_of_a_head_that_fits_its_target_is_the_reward(low: float, high: float) -> None:
    head, rewards = RewardHead(8, low, high), torch.linspace(low, high, 401)
    torch.testing.assert_close(head.mean(head.targets(rewards).log()), rewards, rtol=1e-4, atol=1e-4)


def test_a_head_of_older_worlds_is_off_where_its_bins_are_far_apart() -> None:
    """Its targets weigh symlogs: what its mean is off by is a property of those worlds, not of what they learnt."""
    head, rewards = SymlogRewardHead(8, -100.0, 1000.0), torch.linspace(-5.0, 5.0, 401)
    assert (head.mean(head.targets(rewards).log()) - rewards).abs().max() > 0.02
    assert isinstance(tiny_prior(two_hot="symlog").reward, SymlogRewardHead)


def test_a_reward_that_never_changes_is_no_problem() -> None:
    head = RewardHead(2, 0.0, 0.0)
    logits = torch.zeros(3, 64)
    assert torch.isfinite(head.loss(logits, torch.zeros(3)))
    torch.testing.assert_close(head.mean(logits), torch.zeros(3), atol=1e-3, rtol=0)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(1, 2, 3, 2, dtype=torch.int64), r"codes of shape \(1, 2, 3, 2\), expected \(b, t, 2, 2\)"),
        (torch.zeros(1, 2, 4, dtype=torch.int64), r"codes of shape \(1, 2, 4\), expected"),
        (torch.zeros(1, 0, 2, 2, dtype=torch.int64), "with t >= 1"),
        (torch.zeros(1, 2, 2, 2), "codes of type torch.float32, expected torch.int64"),
        (torch.full((1, 2, 2, 2), 16), "codes 16..16 found, expected 0..15"),
        (torch.full((1, 2, 2, 2), -1), "codes -1..-1 found, expected 0..15"),
    ],
)
def test_codes_that_are_not_this_tokenizers_are_refused(codes: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_prior().start(codes, torch.zeros(1, 1, 2, 1))


@pytest.mark.parametrize("training", [False, True])
def test_codes_of_another_codebook_are_refused_in_training_and_for_likelihoods(training: bool) -> None:
    prior = tiny_prior().train(training)
    codes, actions = random_clip(prior, 2, 3)
    codes[0, 1, 0, 0] = 16
    with pytest.raises(InputError, match=r"codes \d+..16 found, expected 0..15"):
        prior.likelihood(codes, actions)
    with pytest.raises(InputError, match=r"codes \d+..16 found, expected 0..15"):
        uncached(prior, codes, actions)


def test_a_context_longer_than_the_window_is_refused() -> None:
    prior = tiny_prior(window=3)
    prior.start(*random_clip(prior, 1, 3))
    with pytest.raises(InputError, match="a context of 4 latent steps, the prior looks back over 3"):
        prior.start(*random_clip(prior, 1, 4))


@pytest.mark.parametrize("shape", [(2, 2, 1, 1), (2, 2, 2, 3), (2, 1, 2, 1), (1, 2, 2, 1), (2, 2, 2)])
def test_actions_of_another_shape_or_stride_are_refused(shape: tuple[int, ...]) -> None:
    prior = tiny_prior()
    codes, _ = random_clip(prior, 2, 3)
    expected = r"expected \(2, 2, 2, 1\): \(batch, latent steps, frames per latent step, columns of Discrete\(5\)\)"
    with pytest.raises(InputError, match=expected):
        prior.start(codes, torch.zeros(shape))
    with pytest.raises(InputError, match=expected):
        uncached(prior, codes, torch.zeros(shape))


def test_a_step_with_too_many_actions_is_refused() -> None:
    prior = tiny_prior()
    state = prior.start(*random_clip(prior, 1, 2))
    with pytest.raises(InputError, match=r"actions of shape \(1, 1, 3, 1\), expected \(1, 1, 2, 1\)"):
        prior.step(state, torch.zeros(1, 3, 1), GREEDY)


def test_a_codebook_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"codebook of shape \(8, 4\), expected \(16, 4\)"):
        tiny_prior(make_spec(FIVE), torch.zeros(8, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 20, "heads": 2}, "dim must be a multiple of 4 x heads"),
        ({"window": 0}, "at least 1"),
        ({"layers": 1, "time_every": 2}, "prior.layers is 1, expected at least prior.time_every, 2"),
        ({"time_every": 1, "conditioning": TokenConfig()}, "time_every is 1, so no layer attends in space"),
        ({"corruption": 1.0}, "prior.corruption is 1.0"),
        ({"corruption": -0.1}, "prior.corruption is -0.1"),
        ({"own_draws": 1.0}, "prior.own_draws is 1.0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PriorConfig(**settings)  # type: ignore[arg-type]
