"""What a dream remembers: whoever goes on from a state, in whatever order, finds it as it was."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_prior
from torch import Tensor
from torch.utils._pytree import tree_map_only

from vqvideo.models.prior import Prior, PriorState, Sampling

WINDOW = 3
GREEDY = Sampling(temperature=0)


def begin(prior: Prior, rows: int) -> PriorState:
    return prior.start(torch.arange(rows * 4).reshape(rows, 1, 2, 2) % 16, torch.zeros(rows, 0, 2, 1))


def step(prior: Prior, state: PriorState, choice: int) -> PriorState:
    """One step; the codes that follow are dictated, so that rounding cannot lead elsewhere."""
    rows = len(state.codes)
    _, after = prior.step(state, torch.full((rows, 2, 1), float(choice)), GREEDY)
    return after._replace(codes=(state.codes * 3 + choice + 1) % 16)


def known(prior: Prior, state: PriorState) -> Tensor:
    """(b, n, e): what the backbone would say next."""
    hidden, _ = prior._advance(state, torch.ones(len(state.codes), 2, 1))
    return hidden.tokens[:, 0]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whoever_goes_on_from_a_state_finds_it_as_it_was(data: st.DataObject) -> None:
    """A tree of dreams: each grows from any earlier one, some with rows of another; a whole pass says the same."""
    prior = tiny_prior(window=WINDOW, layers=4)
    states, pasts = [begin(prior, 2)], [[[(state, None)] for state in begin(prior, 2).codes]]
    for _ in range(data.draw(st.integers(1, 14))):
        at = data.draw(st.integers(max(0, len(states) - 3), len(states) - 1))
        if data.draw(st.integers(0, 4)) == 0:
            other = data.draw(st.integers(0, len(states) - 1))
            states.append(states[at].with_rows(torch.tensor([1]), states[other].rows(torch.tensor([0]))))
            pasts.append([pasts[at][0], pasts[other][0]])
        else:
            choice = data.draw(st.integers(0, 4))
            states.append(step(prior, states[at], choice))
            pasts.append([[*past, (codes, choice)] for past, codes in zip(pasts[at], states[-1].codes, strict=True)])
    for state, rows in zip(states, pasts, strict=True):
        found = known(prior, state)
        for i, past in enumerate(rows):
            torch.testing.assert_close(found[i], whole_pass(prior, past), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def whole_pass(prior: Prior, past: list[tuple[Tensor, int | None]]) -> Tensor:
    """(n, e): what the backbone says after a past of codes and the actions that led to them, read at once."""
    codes = torch.stack([codes for codes, _ in past]).flatten(1)[None]
    actions = torch.tensor([float(choice) for _, choice in past[1:] if choice is not None] + [1.0])
    return prior.backbone(codes, actions[None, :, None, None].expand(-1, -1, 2, 1)).tokens[0, -1]


def test_a_step_copies_no_memory_but_where_two_go_on_from_the_same_state() -> None:
    prior = tiny_prior(window=WINDOW)
    first = step(prior, begin(prior, 2), 0)
    second = step(prior, first, 1)
    assert memory(second) == memory(first)
    assert memory(step(prior, first, 2)) != memory(first)
    assert memory(step(prior, second, 2)) == memory(first)


def memory(state: PriorState) -> list[int]:
    return [part.untyped_storage().data_ptr() for cache in state.caches for part in (cache.k, cache.v)]


@pytest.mark.parametrize("make", [copy.deepcopy, lambda state: tree_map_only(Tensor, Tensor.clone, state)])
def test_a_copy_of_a_state_goes_on_by_itself(make: object) -> None:
    prior = tiny_prior(window=WINDOW)
    state = step(prior, step(prior, begin(prior, 2), 0), 1)
    copied = make(state)  # type: ignore[operator]
    expected = known(prior, step(prior, state, 3))
    step(prior, copied, 2)
    assert torch.equal(known(prior, step(prior, copied, 3)), expected)


def test_threads_that_go_on_from_the_same_state_do_not_meet() -> None:
    prior = tiny_prior(window=WINDOW)
    state = step(prior, begin(prior, 2), 0)
    expected = [known(prior, step(prior, state, choice)) for choice in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            shared = step(prior, begin(prior, 2), 0)
            found = list(pool.map(lambda choice, s=shared: known(prior, step(prior, s, choice)), range(4)))
            assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_a_state_of_inference_mode_goes_on_outside_of_it() -> None:
    prior = tiny_prior(window=WINDOW)
    expected = known(prior, step(prior, step(prior, begin(prior, 2), 0), 1))
    with torch.inference_mode():
        state = step(prior, begin(prior, 2), 0)
    assert torch.equal(known(prior, step(prior, state, 1)), expected)
