"""Imagining: dreams that can be repeated and stepped, and inputs that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from imagined import same
from tiny_models import SIZE, STEERING, make_spec, noise_frames, tiny_prior, tiny_vqvae, tiny_world
from torch import Tensor

from vqvideo.errors import InputError
from vqvideo.models.prior.sampling import Sampling
from vqvideo.world import EnvFacts, Imagination, WorldModel, WorldStep


def some_actions(batch: int, count: int, seed: int = 0) -> Tensor:
    """(b, t, 1) discrete actions."""
    return torch.randint(5, (batch, count, 1), generator=torch.Generator().manual_seed(seed)).double()


def dream(world: WorldModel, seed: int = 0, steps: int = 4, batch: int = 2) -> Imagination:
    """From a context of three latent steps."""
    s = world.stride
    return world.imagine(noise_frames(batch, 1 + 2 * s), some_actions(batch, (2 + steps) * s), seed=seed)


# ---------------------------------------------------------------- dreaming


@pytest.mark.slow
def test_a_compiled_world_dreams_what_it_did() -> None:
    world = tiny_world()
    before = dream(world, steps=6)
    world.compile_steps()
    assert world.prior.backbone.step is not type(world.prior.backbone).step
    after = dream(world, steps=6)
    torch.testing.assert_close(after.entropy, before.entropy, rtol=1e-3, atol=1e-3)
    assert (after.codes == before.codes).float().mean() > 0.99


def test_to_compile_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler, and there is no g\+\+"):
        tiny_world().compile_steps()


def test_equal_seeds_dream_equal_dreams() -> None:
    world = tiny_world()
    assert same(dream(world, seed=3), dream(world, seed=3))
    assert not torch.equal(dream(world, seed=3).codes, dream(world, seed=4).codes)


def test_without_a_seed_each_dream_is_a_new_one() -> None:
    world = tiny_world()
    frames, actions = noise_frames(2, 5), some_actions(2, 24)
    assert not torch.equal(world.imagine(frames, actions).codes, world.imagine(frames, actions).codes)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_dream_has_the_promised_shapes_and_ranges(stride: int) -> None:
    result = dream(tiny_world(stride), steps=5)
    assert result.frames.shape == (2, 5 * stride, 3, SIZE, SIZE)
    assert result.frames.dtype == torch.uint8
    assert result.codes.shape == (2, 5, 2, 2)
    assert result.codes.dtype == torch.int64
    assert result.rewards.shape == result.termination.shape == result.entropy.shape == (2, 5)
    assert ((result.termination >= 0) & (result.termination <= 1)).all()
    assert ((result.entropy >= 0) & (result.entropy <= np.log(16) + 1e-4)).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_the_dreamt_frames_are_the_decoded_codes(stride: int) -> None:
    """The streaming decoder goes on from the context: a whole-clip decoding gives the same pixels."""
    world = tiny_world(stride)
    result = dream(world)
    context = world.vqvae.encode(noise_frames(2, 1 + 2 * stride))
    whole = world.vqvae.decode(torch.cat([context, result.codes], dim=1))[:, 1 + 2 * stride :]
    assert (result.frames.float() / 255 - whole).abs().max() < 0.5 / 255 + 1e-4


@pytest.mark.parametrize("stride", [1, 2])
def test_start_and_step_do_what_imagine_does(stride: int) -> None:
    world = tiny_world(stride)
    frames, actions = noise_frames(2, 1 + 2 * stride), some_actions(2, 6 * stride)
    expected = world.imagine(frames, actions, seed=5)
    generator = torch.Generator().manual_seed(5)
    state = world.start(frames, actions[:, : 2 * stride])
    steps: list[WorldStep] = []
    for action in actions[:, 2 * stride :].split(stride, dim=1):
        step, state = world.step(state, action, generator=generator)
        steps.append(step)
    assert torch.equal(torch.cat([s.frames for s in steps], dim=1), expected.frames)
    for mine, theirs in (("codes", "codes"), ("reward", "rewards"), ("termination",) * 2, ("entropy",) * 2):
        assert torch.equal(torch.stack([getattr(s, mine) for s in steps], dim=1), getattr(expected, theirs))


def test_a_state_can_be_forked() -> None:
    world = tiny_world()
    state = world.start(noise_frames(1, 5), some_actions(1, 4))
    greedy = Sampling(temperature=0)
    left, _ = world.step(state, np.zeros((1, 2, 1)), sampling=greedy)
    right, _ = world.step(state, np.full((1, 2, 1), 4), sampling=greedy)
    again, _ = world.step(state, np.zeros((1, 2, 1)), sampling=greedy)
    assert torch.equal(left.frames, again.frames)
    assert torch.equal(left.entropy, again.entropy)
    assert not torch.equal(left.entropy, right.entropy)


def test_a_single_frame_is_context_enough() -> None:
    result = tiny_world().imagine(noise_frames(1, 1), some_actions(1, 4), seed=0)
    assert result.frames.shape[1] == 4


def test_frames_and_actions_may_be_arrays_floats_or_lists() -> None:
    world, frames, actions = tiny_world(), noise_frames(1, 3), some_actions(1, 6)
    expected = world.imagine(frames, actions, seed=0)
    assert same(world.imagine(frames.float() / 255, actions.tolist(), seed=0), expected)
    assert same(world.imagine(frames.numpy(), actions.numpy().astype(np.int8), seed=0), expected)


def test_a_row_does_not_depend_on_the_other_rows() -> None:
    world = tiny_world()
    frames, actions = noise_frames(3, 5), some_actions(3, 12)
    how = Sampling(temperature=0)
    together = world.imagine(frames, actions, sampling=how)
    alone = world.imagine(frames[1:2], actions[1:2], sampling=how)
    assert torch.equal(together.codes[1:2], alone.codes)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        *(
            (
                (1, count, 1),
                rf"\(1, {count}, 1\) for 1 context\(s\) of 5 frames, expected \(1, 4 \+ a multiple of 2, 1\)",
            )
            for count in (0, 4, 5, 7)
        ),
        ((3, 8, 1), r"\(3, 8, 1\) for 1 context\(s\)"),
        *((shape, r".*, expected \(b, t, 1\)") for shape in ((8,), (8, 1), (1, 1, 8, 1))),
        ((1, 8, 2), r"\(1, 8, 2\), expected numbers \(..., 1\) for Discrete\(5\)"),
    ],
)
def test_actions_that_do_not_fill_the_latent_steps_of_the_batch_are_refused(
    shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=rf"(actions|float64) of shape {message}"):
        tiny_world().imagine(noise_frames(1, 5), np.zeros(shape))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, r"actions\[0, 6\]: column 0 is 5.0, expected a whole number from 0 to 4 \(Discrete\(5\)\)"),
        (-1, "column 0 is -1.0"),
        (0.5, "column 0 is 0.5, expected a whole number"),
        (np.nan, "column 0 is nan"),
    ],
)
def test_actions_outside_their_space_are_refused(value: float, message: str) -> None:
    actions = np.zeros((1, 8, 1))
    actions[0, 6] = value
    with pytest.raises(InputError, match=message):
        tiny_world().imagine(noise_frames(1, 5), actions)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5, -1.5])
def test_continuous_actions_outside_their_box_are_refused(value: float) -> None:
    actions = np.full((1, 8, 2), 0.5)
    world = tiny_world(space=STEERING)
    world.imagine(noise_frames(1, 5), actions, seed=0)
    actions[0, 1, 0] = value
    with pytest.raises(InputError, match=rf"actions\[0, 1\]: column 0 is {value}, expected a number from -1.0 to 1.0"):
        world.imagine(noise_frames(1, 5), actions)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(1, 5, 3, 8, 8), r"frames of shape \(1, 5, 3, 8, 8\), expected \(b, t, 3, 16, 16\)"),
        (torch.zeros(5, 3, SIZE, SIZE), r"frames of shape \(5, 3, 16, 16\), expected \(b, t, 3, 16, 16\)"),
        (noise_frames(1, 4), r"a clip of 4 frames, expected 1 \+ 2 k frames, such as 3 or 5"),
        (noise_frames(1, 5).long(), r"frames of type torch\.int64"),
        (noise_frames(1, 5).float(), r"float frames from \d+ to 25\d, expected 0..1"),
        (torch.full((1, 5, 3, SIZE, SIZE), torch.nan), "float frames from nan"),
    ],
)
def test_frames_of_another_size_type_number_or_range_are_refused(frames: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_world().imagine(frames, np.zeros((1, 8, 1)))


def test_context_actions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(1, 3\) context actions, expected \(1, 4\), one between two frames"):
        tiny_world().start(noise_frames(1, 5), np.zeros((1, 3, 1)))


def test_a_prior_of_another_tokenizer_is_refused() -> None:
    one, two = tiny_vqvae(seed=0), tiny_vqvae(seed=1)
    prior = tiny_prior(make_spec(tokenizer=one.fingerprint()), one.codebook)
    facts = EnvFacts("Tiny-v0", 10.0, 1)
    WorldModel(one, prior, facts)
    with pytest.raises(InputError, match=f"tokenizer {one.fingerprint()[:16]}, this one is {two.fingerprint()[:16]}"):
        WorldModel(two, prior, facts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebook_size": 32}, "2 x 2 tokens of 32 codes in 4 dimensions for 2 frames, this tokenizer gives 2 x 2"),
        ({"grid": (4, 4)}, "4 x 4 tokens of 16 codes"),
        ({"stride": 4}, "for 4 frames, this tokenizer gives .* for 2 frames"),
        ({"code_dim": 8}, "in 8 dimensions"),
    ],
)
def test_a_prior_of_other_numbers_is_refused_whatever_fingerprint_it_names(
    change: dict[str, Any], message: str
) -> None:
    vqvae = tiny_vqvae()
    prior = tiny_prior(make_spec(**({"tokenizer": vqvae.fingerprint()} | change)))
    with pytest.raises(InputError, match=f"the prior is for .*{message}.*: train the prior again on it"):
        WorldModel(vqvae, prior, EnvFacts("Tiny-v0", 10.0, 1))
