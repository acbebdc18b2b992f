"""Training steps and imagined steps are handed to a GPU without waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import get_args

import pytest
import torch
from tiny_models import noise_frames, tiny_prior, tiny_world
from tiny_tokenizers import QUANTIZERS, name_of, noise, small_vqvae
from torch import Tensor
from torch.utils._pytree import tree_map_only
from waiting import DEVICE, waits

from vqvideo.models.prior import HeadConfig, Sampling

HEADS = get_args(HeadConfig)


@pytest.fixture(autouse=True)
def _device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # The device knows no autocast, and parameters cannot be taken there in place.
    monkeypatch.setattr(torch, "autocast", lambda **_: nullcontext())
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    yield
    torch.__future__.set_overwrite_module_params_on_conversion(False)


def waits_of_the_second(step: Callable[[], object], waited: list[str]) -> list[str]:
    """The first step may wait, to find out where it begins."""
    step()
    waited.clear()
    step()
    return waited


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=name_of)
def test_a_training_step_of_a_tokenizer_waits_for_nothing(quantizer: type) -> None:
    vqvae, frames = small_vqvae(quantizer=quantizer).train(), noise(4, 5)
    with waits() as waited:
        vqvae, frames = vqvae.to(DEVICE), frames.to(DEVICE)

        def step() -> None:
            vqvae(frames, stills=frames[:, :1]).loss.backward()
            vqvae.after_step()

        assert waits_of_the_second(step, waited) == []


@pytest.mark.parametrize("head", HEADS, ids=name_of)
def test_a_training_step_of_a_prior_waits_for_nothing(head: type) -> None:
    prior = tiny_prior(head=head()).train()
    codes, actions = torch.randint(16, (4, 4, 2, 2)), torch.randint(5, (4, 3, 2, 1)).float()
    batch = (codes, actions, torch.rand(4, 3), torch.rand(4, 3) < 0.5, torch.rand(4, 3), torch.rand(4, 3) < 0.5)
    with waits() as waited:
        prior.to(DEVICE)
        there = [part.to(DEVICE) for part in batch]
        assert waits_of_the_second(lambda: prior(*there).loss.backward(), waited) == []


@pytest.mark.parametrize("head", HEADS, ids=name_of)
@pytest.mark.parametrize("how", [Sampling(), Sampling(temperature=0.9, top_k=4, guidance=2.0)], ids=str)
def test_an_imagined_step_waits_for_nothing(head: type, how: Sampling) -> None:
    world = tiny_world()
    world.prior = tiny_prior(world.prior.spec, world.vqvae.codebook, head=head()).requires_grad_(False)
    state, actions = world.start(noise_frames(3, 5), torch.zeros(3, 4, 1)), torch.ones(3, 2, 1)
    with waits() as waited:
        world.to(DEVICE)
        state, actions = tree_map_only(Tensor, lambda x: x.to(DEVICE), (state, actions))

        def step() -> None:
            nonlocal state
            _, state = world.advance(state, actions, how)

        assert waits_of_the_second(step, waited) == []
