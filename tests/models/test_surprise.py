"""Surprise: the likelihoods of the prior and the errors of the tokenizer, step by step as for the whole clip."""

from __future__ import annotations

import pytest
import torch
from tiny_models import film_world, noise_frames, tiny_world

from vqvideo.errors import InputError
from vqvideo.models.prior import AutoregressiveHeadConfig, MaskedHeadConfig, ParallelHeadConfig, PixelCNNConfig

HEADS = [ParallelHeadConfig(), AutoregressiveHeadConfig(layers=1), PixelCNNConfig(layers=1)]


def some_actions(batch: int, count: int) -> torch.Tensor:
    return torch.randint(5, (batch, count, 1), generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
@pytest.mark.parametrize("stride", [1, 2])
def test_nats_are_those_of_the_likelihood(head: object, stride: int) -> None:
    world = tiny_world(stride, head=head, window=4)
    frames, actions = noise_frames(2, 1 + 3 * stride), some_actions(2, 3 * stride)
    found = world.surprise(frames, actions)
    codes = world.vqvae.encode(frames)
    grouped = world.checked_actions(actions).unflatten(1, (3, stride))
    told = world.prior.likelihood(codes, grouped).nats
    assert found.nats.shape == (2, 3, *world.vqvae.grid)
    torch.testing.assert_close(found.nats.sum(dim=(2, 3)), told, rtol=1e-4, atol=1e-3)


def test_a_prior_that_always_knows_the_action_does_not_say_what_it_is_worth() -> None:
    assert tiny_world(2, action_dropout=0.0).surprise(noise_frames(1, 5), some_actions(1, 4)).blind is None


def test_errors_are_those_of_the_reconstruction() -> None:
    world = tiny_world(2)
    frames = noise_frames(1, 7)
    found = world.surprise(frames, some_actions(1, 6))
    rebuilt = world.vqvae.decode(world.vqvae.encode(frames))
    error = (rebuilt - frames / 255).square()[:, 1:].unflatten(1, (3, 2)).mean(dim=(2, 3, 4, 5))
    torch.testing.assert_close(found.error.mean(dim=(2, 3)), error, rtol=1e-4, atol=1e-6)
    # A token's own pixels: 8 x 8 of them in the upper left corner.
    corner = (rebuilt - frames / 255).square()[:, 1:3, :, :8, :8].mean()
    torch.testing.assert_close(found.error[0, 0, 0, 0], corner, rtol=1e-4, atol=1e-6)


def test_distances_are_those_of_latents_to_their_codes() -> None:
    world = tiny_world(2)
    frames = noise_frames(1, 7)
    found = world.surprise(frames, some_actions(1, 6))
    codes, distance, _ = world.vqvae.encode_step_with_distance(frames, world.vqvae.init_state(1))
    assert torch.equal(codes, world.vqvae.encode(frames))
    torch.testing.assert_close(found.distance, distance[:, 1:], rtol=1e-4, atol=1e-6)


def test_a_prior_that_can_do_without_actions_says_what_they_are_worth() -> None:
    world = tiny_world(2, action_dropout=0.1)
    frames, actions = noise_frames(1, 7), some_actions(1, 6)
    found, other = world.surprise(frames, actions), world.surprise(frames, (actions + 1) % 5)
    assert found.blind is not None
    assert other.blind is not None
    torch.testing.assert_close(found.blind[:, 0], other.blind[:, 0])
    assert not torch.allclose(found.nats, other.nats)


def test_a_world_of_films_needs_no_actions() -> None:
    assert film_world().surprise(noise_frames(1, 5)).nats.isfinite().all()


def test_what_does_not_fit_is_refused() -> None:
    world = tiny_world(2)
    with pytest.raises(InputError, match=r"expected \(1, 4\), one between two frames"):
        world.surprise(noise_frames(1, 5), some_actions(1, 3))
    with pytest.raises(InputError, match="of two latent steps at least"):
        world.surprise(noise_frames(1, 1), some_actions(1, 0))
    with pytest.raises(InputError, match="MaskedHead"):
        tiny_world(2, head=MaskedHeadConfig()).surprise(noise_frames(1, 5), some_actions(1, 4))
