"""Tokenizers, priors and worlds in half and double precision compute, are saved and loaded like others."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from imagined import SPACES, dreams, same, some_world
from tiny_models import FIVE, STEERING, make_spec, noise_frames, tiny_prior, tiny_vqvae, tiny_world
from tiny_tokenizers import QUANTIZERS, name_of, noise, small_vqvae

from vqvideo.models.imagination import Imagination
from vqvideo.models.prior import ConditioningConfig, HeadConfig, PoolingConfig, Sampling
from vqvideo.models.quantizers.outside import Adapted
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.world import WorldModel

HALF = (torch.bfloat16, torch.float16)
DTYPES = (*HALF, torch.float64)
HOW = Sampling(temperature=0.9, guidance=2.0)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
quantizers = pytest.mark.parametrize("quantizer", QUANTIZERS, ids=name_of)


def dream(world: WorldModel) -> Imagination:
    return world.imagine(noise_frames(2, 5), np.ones((2, 12, world.action_space.size)), sampling=HOW, seed=1)


@dtypes
@quantizers
def test_a_tokenizer_of_any_precision_gives_nearly_the_same_codes(quantizer: type, dtype: torch.dtype) -> None:
    vqvae, frames = small_vqvae(quantizer=quantizer), noise(4, 9)
    codes, shown = vqvae.encode(frames), vqvae.decode(vqvae.encode(frames))
    vqvae.to(dtype)
    assert (vqvae.encode(frames) == codes).float().mean() > 0.9
    torch.testing.assert_close(vqvae.decode(codes), shown, atol=0.05, rtol=0)


@dtypes
@quantizers
def test_a_stream_of_any_precision_is_the_whole_clip(quantizer: type, dtype: torch.dtype) -> None:
    vqvae, frames = small_vqvae(quantizer=quantizer).to(dtype), noise(2, 9)
    codes = vqvae.encode(frames)
    (first, state), told = vqvae.encode_step(frames[:, :1], vqvae.init_state(2)), []
    for part in frames[:, 1:].split(2, dim=1):
        step, state = vqvae.encode_step(part, state)
        told.append(step)
    assert torch.equal(torch.cat([first, *told], dim=1), codes)
    state, shown = vqvae.init_state(2), []
    for part in codes.split(1, dim=1):
        step, state = vqvae.decode_step(part, state)
        shown.append(step)
    torch.testing.assert_close(torch.cat(shown, dim=1)[:, 1:], vqvae.decode(codes), atol=0.01, rtol=0)


@dtypes
@quantizers
def test_a_tokenizer_of_any_precision_trains(quantizer: type, dtype: torch.dtype) -> None:
    vqvae = small_vqvae(quantizer=quantizer).to(dtype).train()
    output = vqvae(noise(4, 5), noise(4, 1))
    output.loss.backward()
    vqvae.after_step()
    assert output.loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vqvae.encoder.parameters())


@quantizers
def test_a_quantizer_keeps_its_precision_where_weights_are_rounded(quantizer: type) -> None:
    vqvae = small_vqvae(quantizer=quantizer)
    before = {name: tensor.clone() for name, tensor in vqvae.quantizer.state_dict().items()}
    vqvae.double().half().bfloat16().float()
    assert all(torch.equal(tensor, before[name]) for name, tensor in vqvae.quantizer.state_dict().items())


@dtypes
def test_a_foreign_quantizer_is_taken_to_any_precision_with_its_tokenizer(dtype: torch.dtype) -> None:
    class Signs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.turn = torch.nn.Linear(3, 3, bias=False)

        def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            indices = ((self.turn(z) > 0) * torch.tensor([1, 2, 4])).sum(dim=-1)
            return self.decoded(indices).to(z), indices

        def decoded(self, indices: torch.Tensor) -> torch.Tensor:
            return (indices[..., None] // torch.tensor([1, 2, 4]) % 2) * 2.0 - 1

    signs = Signs()
    plain = small_vqvae()
    vqvae = VQVAE(plain.cfg, plain.frame_size, Adapted(signs, dim=3, codebook_size=8, decode=signs.decoded))
    codes = vqvae.to(dtype).eval().encode(noise(2, 5))
    assert vqvae.decode(codes).isfinite().all()


@dtypes
@pytest.mark.parametrize("space", [FIVE, STEERING, SPACES["none"]], ids=str)
@pytest.mark.parametrize("pooling", get_args(PoolingConfig), ids=name_of)
@pytest.mark.parametrize("conditioning", get_args(ConditioningConfig), ids=name_of)
@pytest.mark.parametrize("head", get_args(HeadConfig), ids=name_of)
def test_a_prior_of_any_precision_trains_and_dreams(
    head: type, conditioning: type, pooling: type, space: object, dtype: torch.dtype
) -> None:
    kinds = {"head": head(), "conditioning": conditioning(), "pooling": pooling()}
    prior = tiny_prior(make_spec(space), dim=16, heads=1, layers=2, **kinds).to(dtype)  # type: ignore[arg-type]
    codes, actions = torch.randint(16, (2, 3, 2, 2)), torch.ones(2, 2, 2, prior.spec.action_space.size)
    how = HOW if prior.can_guide else Sampling()
    step, _ = prior.step(prior.start(codes, actions), actions[:, 0], how, torch.Generator().manual_seed(0))
    assert step.reward.isfinite().all()
    assert step.entropy.isfinite().all()
    assert prior.likelihood(codes, actions).nats.isfinite().all()
    output = prior.train()(codes, actions, torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool))
    output.loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in prior.parameters())


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_statistics_angles_and_bins_stay_exact_in_a_prior_of_half_precision(dtype: torch.dtype) -> None:
    prior = tiny_prior()
    before = {name: tensor.clone() for name, tensor in prior.named_buffers()}
    prior.to(dtype)
    assert prior.termination.weight.dtype == dtype
    assert all(torch.equal(tensor, before[name]) for name, tensor in prior.named_buffers())


@dtypes
def test_a_world_saved_in_any_precision_is_loaded_in_single_and_dreams_as_before_in_its_own(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    world = tiny_world(space=STEERING).to(dtype)
    world.save_pretrained(tmp_path / "world")
    loaded = WorldModel.from_pretrained(tmp_path / "world")
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.float32}
    assert (loaded.fingerprint(), loaded.vqvae.fingerprint()) == (world.fingerprint(), world.vqvae.fingerprint())
    assert same(dream(loaded.to(dtype)), dream(world))


def test_half_precision_makes_another_world_and_double_precision_does_not() -> None:
    world = tiny_world()
    before = world.fingerprint()
    assert world.double().fingerprint() == before
    assert world.bfloat16().fingerprint() != before


@pytest.mark.parametrize("auto", HALF, ids=str)
@pytest.mark.parametrize("dtype", [None, torch.float64], ids=str)
def test_a_world_dreams_under_autocast(dtype: torch.dtype | None, auto: torch.dtype) -> None:
    world = tiny_world(space=STEERING).to(dtype or torch.float32)
    plain = world.vqvae.encode(noise_frames(2, 5))
    with torch.autocast("cpu", dtype=auto):
        assert torch.equal(world.vqvae.encode(noise_frames(2, 5)), plain)
        told = dream(world)
    assert told.rewards.isfinite().all()
    assert told.entropy.isfinite().all()


@dtypes
@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_an_imagined_env_of_any_precision_gives_the_types_of_every_other(output: str, dtype: torch.dtype) -> None:
    def told(world: WorldModel) -> list[object]:
        envs = dreams(world, output=output, autoreset_mode="SameStep")
        envs.reset(seed=0)
        envs.action_space.seed(0)
        for _ in range(6):
            observations, rewards, terminated, truncated, infos = envs.step(envs.action_space.sample())
            assert torch.as_tensor(rewards).isfinite().all()
        return [part.dtype for part in (observations, rewards, terminated, truncated, infos["entropy"])]

    assert told(some_world().to(dtype)) == told(some_world())


def test_weights_of_any_precision_go_on_from_streams_begun_in_another() -> None:
    vqvae, frames = tiny_vqvae(), noise_frames(2, 5)
    _, state = vqvae.encode_step(frames[:, :3], vqvae.init_state(2))
    codes, _ = vqvae.to(torch.bfloat16).encode_step(frames[:, 3:], state)
    assert codes.shape == (2, 1, 2, 2)
