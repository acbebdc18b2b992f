"""The heads: what they can learn that independent tokens cannot, their likelihoods, and how they draw."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from einops import rearrange
from tiny_models import make_spec, shake, tiny_prior
from torch import Tensor

from vqvideo.errors import InputError
from vqvideo.models import class_of
from vqvideo.models.prior import (
    AutoregressiveHeadConfig,
    Head,
    HeadConfig,
    MaskedHeadConfig,
    ParallelHeadConfig,
    PixelCNNConfig,
    Prior,
    PriorConfig,
    Sampling,
    sampling,
)
from vqvideo.models.prior.sampling import TokenSampler

KINDS: tuple[type, ...] = get_args(HeadConfig)
RASTER = (AutoregressiveHeadConfig(), PixelCNNConfig(layers=3))
"""Those that draw one token after the other, in raster order."""
GRID = (1, 4)
DIM = 16
SILENT = torch.linspace(-1, 1, DIM)
"""A hidden vector that says nothing: the same at every token."""


def make_head(cfg: HeadConfig, k: int = 4, seed: int = 0, grid: tuple[int, int] = GRID) -> Head:
    torch.manual_seed(seed)
    return class_of(cfg, "prior")(cfg, DIM, grid, torch.randn(k, 3))


def twins(batch: int, generator: torch.Generator) -> Tensor:
    """(b, 1, 4): all four tokens are the same code, 0 or 1 at random: ln 2 nats in all."""
    return torch.randint(2, (batch, 1, 1), generator=generator).expand(-1, -1, 4)


@pytest.mark.parametrize("kind", KINDS, ids=lambda cls: cls.__name__)
def test_steps_that_do_not_count_change_neither_loss_nor_gradient(kind: type) -> None:
    """What stands beyond the end of an episode is nothing."""
    head = make_head(kind())
    torch.manual_seed(1)
    hidden, codes, counted = torch.randn(3, 4, 4, DIM), torch.randint(4, (3, 4, 4)), torch.rand(3, 4) < 0.5
    others = torch.where(counted[..., None], codes, torch.randint(4, codes.shape))
    outcomes = []
    for each in (codes, others):
        head.zero_grad()
        found = head(hidden, each, torch.Generator().manual_seed(2), counted)
        found.nats.backward()
        gradients = [w.grad.flatten() for w in head.parameters() if w.grad is not None]
        outcomes.append(torch.cat([found.nats.detach()[None], found.top1[None], *gradients]))
    assert counted.any()
    assert not counted.all()
    torch.testing.assert_close(*outcomes)
    if kind is not MaskedHeadConfig:  # whose tokens to fill in are drawn for all steps together
        alone = head(hidden[counted][:, None], codes[counted][:, None])
        torch.testing.assert_close(outcomes[0][0], alone.nats.detach())


@pytest.fixture(scope="module", params=KINDS, ids=lambda cls: cls.__name__)
def trained(request: pytest.FixtureRequest) -> Head:
    """A head that has learnt `twins` from hidden vectors that say nothing."""
    cfg = request.param(passes=4) if request.param is MaskedHeadConfig else request.param()
    head = make_head(cfg)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(250):
        head(SILENT.expand(32, 1, 4, DIM), twins(32, generator)).nats.backward()
        optimizer.step()
        optimizer.zero_grad()
    return head.eval()


@torch.no_grad()
def test_heads_that_see_their_own_tokens_draw_tokens_that_agree(trained: Head) -> None:
    pick = TokenSampler(Sampling(top_p=1.0), torch.Generator().manual_seed(0))
    codes = trained.sample(SILENT.expand(200, 4, DIM), pick)
    agree = (codes == codes[:, :1]).all(dim=1).float().mean()
    both = codes[:, 0].float().mean()
    assert 0.3 < both < 0.7
    if type(trained).__name__ == "ParallelHead":
        assert agree < 0.3
    else:
        assert agree > 0.9


@torch.no_grad()
def test_likelihoods_are_those_of_the_world_that_was_learnt(trained: Head) -> None:
    codes = twins(2000, torch.Generator().manual_seed(1))
    nats, kind = trained.likelihood(SILENT.expand(2000, 1, 4, DIM), codes, torch.Generator().manual_seed(0))
    assert nats.shape == (2000, 1)
    known = 4 * math.log(2) if type(trained).__name__ == "ParallelHead" else math.log(2)
    assert kind == ("bound" if type(trained).__name__ == "MaskedHead" else "exact")
    assert nats.mean().item() == pytest.approx(known, abs=0.12)


@torch.no_grad()
def test_probabilities_of_all_codes_of_a_step_add_up_to_one() -> None:
    """Over all 2^4 steps of four tokens; the masked head's is a bound of random orders and need not."""
    every = torch.cartesian_prod(*[torch.arange(2)] * 4)[:, None]
    for cfg in (ParallelHeadConfig(), *RASTER):
        head = make_head(cfg, k=2)
        shake(head)
        hidden = torch.randn(1, 1, 4, DIM).expand(16, -1, -1, -1)
        total = (-head.likelihood(hidden, every).nats.double()).exp().sum()
        assert total.item() == pytest.approx(1, abs=1e-5)


@torch.no_grad()
def test_the_masked_bound_is_no_better_than_the_true_likelihood() -> None:
    """One order alone is a proper model, so the mean of -log p over orders, added up over all steps, cannot beat 1."""
    head = make_head(MaskedHeadConfig(), k=2)
    shake(head)
    every = torch.cartesian_prod(*[torch.arange(2)] * 4)[:, None]
    hidden = torch.randn(1, 1, 4, DIM).expand(16, -1, -1, -1)
    generator = torch.Generator().manual_seed(0)
    nats = torch.stack([head.likelihood(hidden, every, generator).nats for _ in range(200)]).double().mean(dim=0)
    assert (-nats).exp().sum() <= 1.02


class Recorder(TokenSampler):
    """Draws, and notes how many tokens were asked for."""

    def __init__(self) -> None:
        super().__init__(Sampling(), torch.Generator().manual_seed(0))
        self.sizes: list[int] = []

    def draw(self, x: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
        return self(logits(x))

    def __call__(self, logits: Tensor) -> Tensor:
        self.sizes.append(logits.shape[1])
        return super().__call__(logits)


@pytest.mark.parametrize(
    ("cfg", "sizes"),
    [
        (ParallelHeadConfig(), [4]),
        (AutoregressiveHeadConfig(), [1, 1, 1, 1]),
        (PixelCNNConfig(), [1, 1, 1, 1]),
        (MaskedHeadConfig(passes=1), [4]),
        (MaskedHeadConfig(passes=2), [2, 2]),
        (MaskedHeadConfig(passes=50), [1, 1, 1, 1]),
    ],
)
def test_every_token_is_drawn_once_in_as_many_passes_as_the_head_takes(cfg: HeadConfig, sizes: list[int]) -> None:
    pick = Recorder()
    with torch.no_grad():
        codes = make_head(cfg).sample(torch.randn(3, 4, DIM), pick)
    assert pick.sizes == sizes
    assert codes.shape == (3, 4)
    assert pick.entropy.shape == (3,)


@pytest.mark.parametrize("cfg", [*RASTER, PixelCNNConfig(layers=2, kernel=5)])
@torch.no_grad()
def test_drawing_one_by_one_asks_what_the_whole_pass_computes(cfg: HeadConfig) -> None:
    head = make_head(cfg, grid=(3, 4))
    shake(head)
    hidden = torch.randn(3, 12, DIM)
    asked: list[Tensor] = []

    class Listener(TokenSampler):
        def draw(self, x: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
            return self(logits(x))

        def __call__(self, logits: Tensor) -> Tensor:
            asked.append(logits)
            return super().__call__(logits)

    codes = head.sample(hidden, Listener(Sampling(), torch.Generator().manual_seed(0)))
    whole = head.logits(hidden[:, None], codes[:, None])[:, 0]
    torch.testing.assert_close(torch.cat(asked, dim=1), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cfg", RASTER)
@pytest.mark.parametrize(
    "how",
    [
        Sampling(top_p=1.0),
        Sampling(temperature=0),
        Sampling(temperature=0.7, top_k=3, top_p=1.0),
        Sampling(top_p=1.0, guidance=2.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("places", [99, 4, 0])
@torch.no_grad()
def test_guessing_until_nothing_changes_draws_what_one_by_one_would(
    cfg: HeadConfig, how: Sampling, places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = make_head(cfg, k=5, grid=(3, 4))
    shake(head)
    monkeypatch.setattr(sampling, "_PLACES", places)
    monkeypatch.setattr(sampling, "_FEW", 16)
    hidden = torch.randn(16, 12, DIM)
    guessing = TokenSampler(how, torch.Generator().manual_seed(0))
    guessed = head.sample(hidden, guessing)
    own = 8 if how.compares else 16
    monkeypatch.setattr(sampling, "_FEW", 0)
    one_by_one = TokenSampler(how, torch.Generator().manual_seed(0))
    assert torch.equal(guessed, head.sample(hidden, one_by_one))
    torch.testing.assert_close(guessing.entropy, one_by_one.entropy, atol=1e-5, rtol=1e-4)
    assert guessing.entropy.shape == (own,)
    assert how.temperature == 0 or len(guessed[:own].unique(dim=0)) > 1


@torch.no_grad()
def test_where_the_past_tells_all_two_passes_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    head = make_head(AutoregressiveHeadConfig(), k=5, grid=(3, 4))
    torch.nn.init.zeros_(head.embed.table.weight)
    torch.nn.init.zeros_(head.embed.geometry.weight)
    passes: list[int] = []
    whole = head.logits
    monkeypatch.setattr(head, "logits", lambda x, codes: (passes.append(len(x)), whole(x, codes))[1])
    head.sample(torch.randn(3, 12, DIM), TokenSampler(Sampling(top_p=1.0)))
    assert passes == [3, 3]


@pytest.mark.parametrize("cfg", RASTER)
@torch.no_grad()
def test_a_token_is_told_all_before_it_and_neither_itself_nor_what_comes_after(cfg: HeadConfig) -> None:
    """Without a blind spot: each of 3 x 3 tokens also hears of what is above and to the right."""
    head = make_head(cfg, grid=(3, 3))
    shake(head)
    hidden, codes = torch.randn(1, 1, 9, DIM), torch.arange(9)[None, None] % 4
    before = head.logits(hidden, codes)
    for place in range(9):
        other = codes.clone()
        other[..., place] = (codes[..., place] + 1) % 4
        changed = (head.logits(hidden, other) - before).abs().amax(dim=-1)[0, 0]
        assert changed[: place + 1].max() < 1e-5
        assert (changed[place + 1 :] > 1e-4).all()


@pytest.mark.parametrize("cfg", RASTER)
@torch.no_grad()
def test_codes_come_as_often_as_their_likelihood_says(cfg: HeadConfig) -> None:
    """All 16 pictures of 2 x 2 tokens with two codes, of weights that nobody chose."""
    head = make_head(cfg, k=2, grid=(2, 2))
    shake(head)
    hidden = torch.randn(1, 4, DIM)
    drawn = head.sample(
        hidden.expand(4000, -1, -1), TokenSampler(Sampling(top_p=1.0), torch.Generator().manual_seed(0))
    )
    often = torch.bincount(drawn @ torch.tensor([8, 4, 2, 1]), minlength=16) / len(drawn)
    every = torch.cartesian_prod(*[torch.arange(2)] * 4)[:, None]
    known = (-head.likelihood(hidden.expand(16, 1, -1, -1), every).nats[:, 0]).exp()
    assert known.max() < 0.9
    torch.testing.assert_close(often, known, atol=0.03, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_all_weights_of_a_head_learn_and_so_does_the_backbone(kind: type) -> None:
    head = make_head(kind(), grid=(3, 3))
    shake(head)
    hidden = torch.randn(8, 1, 9, DIM, requires_grad=True)
    head(hidden, torch.randint(4, (8, 1, 9)), torch.Generator().manual_seed(0)).nats.backward()
    weights = {**dict(head.named_parameters()), "hidden": hidden}
    silent = [name for name, weight in weights.items() if weight.grad is None or not weight.grad.any()]
    assert silent == []


@torch.no_grad()
def test_a_hidden_token_is_not_told_itself_and_sees_all_that_are_shown() -> None:
    head = make_head(MaskedHeadConfig())
    shake(head)
    hidden, codes = torch.randn(1, 1, 4, DIM), torch.tensor([[[0, 1, 2, 3]]])
    masked = torch.tensor([[[True, False, True, False]]])
    before = head.logits(head.trunk(hidden, codes, masked))
    for place in range(4):
        other = codes.clone()
        other[..., place] = (codes[..., place] + 1) % 4
        changed = (head.logits(head.trunk(hidden, other, masked)) - before).abs().amax()
        assert (changed > 1e-4) == (place in (1, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_draw_equal_dreams_and_others_do_not(kind: type) -> None:
    prior = tiny_prior(head=kind())
    codes = torch.zeros(2, 1, *prior.spec.grid, dtype=torch.int64)

    def dream(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        state, drawn = prior.start(codes, torch.zeros(2, 0, 2, 1)), []
        for _ in range(6):
            step, state = prior.step(state, torch.ones(2, 2, 1), Sampling(), generator)
            drawn.append(step.codes)
        return torch.stack(drawn)

    assert torch.equal(dream(0), dream(0))
    assert not torch.equal(dream(0), dream(1))


def test_patches_of_tokens_give_every_token_its_own_place_back() -> None:
    prior = Prior(PriorConfig(dim=32, heads=2, patch=2, window=3), make_spec(grid=(4, 6)), torch.randn(16, 4))
    patches = prior.backbone.squares
    tokens = torch.randn(1, 1, 24, 16)
    # With identity maps, folding and unfolding doubles the tokens (the skip connection adds them once more).
    patches.down, patches.up = torch.nn.Identity(), torch.nn.Identity()
    places = patches.fold(tokens)
    assert places.shape == (1, 1, 6, 64)
    torch.testing.assert_close(patches.unfold(places, tokens), 2 * tokens)
    grid = rearrange(tokens, "1 1 (h w) e -> h w e", h=4)
    corner = rearrange(grid[2:4, 2:4], "p q e -> (p q e)")
    torch.testing.assert_close(places[0, 0, 4], corner)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskedHeadConfig(passes=0), "head.passes is 0"),
        (lambda: MaskedHeadConfig(layers=0), "layers is 0"),
        (lambda: AutoregressiveHeadConfig(layers=0), "head.layers is 0"),
        (lambda: PixelCNNConfig(layers=0), "head.layers is 0"),
        (lambda: PixelCNNConfig(kernel=1), "head.kernel is 1"),
        (lambda: PixelCNNConfig(kernel=4), "head.kernel is 4, expected an odd number"),
        (lambda: PriorConfig(dim=32, heads=2, patch=3), "prior.patch is 3, expected a divisor of prior.dim 32"),
        (lambda: PriorConfig(dim=32, heads=2, patch=0), "prior.patch is 0"),
        (lambda: PriorConfig(dim=48, head=MaskedHeadConfig(heads=8)), "prior.head.heads is 8 and tokens are 48 wide"),
        (lambda: PriorConfig(action_dropout=1.0), "prior.action_dropout is 1.0"),
        (lambda: tiny_prior(make_spec(grid=(2, 3)), patch=2), r"expected a divisor of the tokenizer's grid \(2, 3\)"),
    ],
)
def test_impossible_settings_are_refused(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]
