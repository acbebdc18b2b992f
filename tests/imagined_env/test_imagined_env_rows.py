"""Dreams that are put into a batch under way: at any clock they go on as they would have gone alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from tiny_models import FIVE, make_spec, noise_frames, tiny_prior, tiny_vqvae
from torch import Tensor

from vqvideo.models.prior import ConditioningConfig, HeadConfig, Sampling
from vqvideo.models.prior.sampling import TokenSampler
from vqvideo.storage.records import kind_of
from vqvideo.world import EnvFacts, WorldModel, WorldState, WorldStep

WINDOW = 3
VARIANTS: list[dict[str, Any]] = [
    *({"head": cls()} for cls in get_args(HeadConfig)),
    *({"conditioning": cls()} for cls in get_args(ConditioningConfig)),
]
NAMES = [kind_of(type(value)) for settings in VARIANTS for value in settings.values()]


def make_world(settings: dict[str, Any]) -> WorldModel:
    """Stride 2, a window of three latent steps."""
    vqvae = tiny_vqvae()
    spec = make_spec(FIVE, grid=vqvae.grid, stride=2, tokenizer=vqvae.fingerprint())
    prior = tiny_prior(spec, vqvae.codebook, window=WINDOW, **settings)
    return WorldModel(vqvae, prior, EnvFacts("Tiny-v0", 10.0, 1)).eval().requires_grad_(False)


class Dictated(TokenSampler):
    """Hands out given codes (b, n) instead of drawing, tokens in raster order, and keeps the logits."""

    def __init__(self, codes: Tensor) -> None:
        super().__init__(Sampling(temperature=0))
        self.revises = False
        self.codes, self.asked = codes, list[Tensor]()

    def draw(self, x: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
        return self(logits(x))

    def __call__(self, logits: Tensor) -> Tensor:
        super().__call__(logits)
        place = sum(part.shape[1] for part in self.asked)
        self.asked.append(logits)
        return self.codes[:, place : place + logits.shape[1]]

    def order(self, rows: int, n: int, device: torch.device) -> Tensor:
        return torch.arange(n).expand(rows, n)


class Stepper:
    """Steps a world along dictated codes and actions."""

    def __init__(self, world: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        monkeypatch.setattr("vqvideo.models.prior.prior.TokenSampler", lambda how, generator: self.picker)

    def begin(self, rows: int, context: int, seed: int) -> WorldState:
        """Reads a context of noise."""
        length = self.world.vqvae.clip_length(context)
        return self.world.start(noise_frames(rows, length, seed), torch.ones(rows, length - 1, 1))

    def step(self, state: WorldState, codes: Tensor, action: Tensor) -> tuple[Tensor, WorldStep, WorldState]:
        """Logits (b, n, k), step and state after codes (b, n) under one action (b,)."""
        self.picker = Dictated(codes)
        step, state = self.world.step(state, action[:, None, None].expand(-1, 2, 1))
        return torch.cat(self.picker.asked, dim=1), step, state


def course(steps: int, rows: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Codes (b, n) and actions (b,) of each step."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randint(16, (rows, 4), generator=generator), torch.randint(5, (rows,), generator=generator))
        for _ in range(steps)
    ]


@pytest.mark.parametrize(("late", "context"), [(0, 3), (2, 1), (8, 3), (1000, 2)])
@pytest.mark.parametrize("settings", VARIANTS, ids=NAMES)
def test_a_row_that_begins_late_goes_on_as_one_that_began_at_the_start(
    settings: dict[str, Any], late: int, context: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepper = Stepper(make_world(settings), monkeypatch)
    old = stepper.begin(2, 2, seed=0)
    for codes, action in course(min(late, 10), 2, seed=1):
        _, _, old = stepper.step(old, codes, action)
    # A clock far on is reached by turning it, not by a thousand steps.
    old = old._replace(prior=later(old, late - min(late, 10)))
    alone = stepper.begin(1, context, seed=2)
    merged = old.with_rows(torch.tensor([1]), alone)
    assert merged.prior.clock != alone.prior.clock
    for k, (codes, action) in enumerate(course(2 * WINDOW + 1, 2, seed=3)):
        found, expected, plain = (
            stepper.step(merged, codes, action),
            stepper.step(alone, codes[1:], action[1:]),
            stepper.step(old, codes, action),
        )
        assert found[0].std() > 0.3
        for i, one in ((1, expected), (0, plain)):
            torch.testing.assert_close(found[0][i], one[0][0], atol=1e-4, rtol=1e-4)
            for name in ("reward", "termination", "entropy"):
                values = getattr(found[1], name)[i], getattr(one[1], name)[0]
                torch.testing.assert_close(*values, atol=1e-4, rtol=1e-4)
            assert (found[1].frames[i].int() - one[1].frames[0].int()).abs().max() <= 1
        assert torch.equal(found[0][0], plain[0][0])
        # The codes are dictated, so that the past that differs is forgotten some time.
        assert k > 0 or not torch.allclose(found[0][1], plain[0][1], atol=1e-2)
        merged, alone, old = found[2], expected[2], plain[2]


def later(state: WorldState, steps: int) -> Any:
    """The prior's state as if it had been `steps` further on."""
    prior = state.prior
    caches = tuple(cache.later(steps) for cache in prior.caches)
    return prior._replace(caches=caches, clock=prior.clock + steps)


def test_rows_of_a_batch_go_on_as_the_batch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    stepper = Stepper(make_world({}), monkeypatch)
    whole = stepper.begin(4, 2, seed=0)
    some = torch.tensor([2, 0, 2])
    part = whole.rows(some)
    for codes, action in course(2 * WINDOW, 4, seed=1):
        all_of_them, some_of_them = stepper.step(whole, codes, action), stepper.step(part, codes[some], action[some])
        torch.testing.assert_close(some_of_them[0], all_of_them[0][some], atol=1e-4, rtol=1e-4)
        whole, part = all_of_them[2], some_of_them[2]


def test_putting_rows_in_leaves_both_states_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    stepper = Stepper(make_world({}), monkeypatch)
    old, new = stepper.begin(3, 2, seed=0), stepper.begin(1, 3, seed=1)
    codes, action = course(1, 3, seed=2)[0]
    before = [stepper.step(old, codes, action)[0], stepper.step(new, codes[:1], action[:1])[0]]
    merged = old.with_rows(torch.tensor([2]), new)
    stepper.step(merged, codes, action)
    after = [stepper.step(old, codes, action)[0], stepper.step(new, codes[:1], action[:1])[0]]
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
