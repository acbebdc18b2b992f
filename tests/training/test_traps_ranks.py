"""Traps of quantizers that several ranks train together."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import on_two_ranks
from safetensors.torch import load_file, save_file
from tiny_models import train_config
from tiny_tokenizers import QUANTIZERS, latents, name_of, observe, small_quantizer
from torch import Tensor, nn

from vqvideo.models.quantizers import BSQConfig, LFQConfig, Quantizer
from vqvideo.training.launch import make_accelerator

MINUTE = timedelta(minutes=1)
"""Ranks that wait for each other in vain fail after this time."""
START, STEPS, COUNT = 2048, 3, 400


def _join(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=MINUTE)


def batch(quantizer: Quantizer, step: int) -> Tensor:
    """Latents of a step, for all ranks together."""
    return latents(quantizer, COUNT, seed=step) * torch.linspace(4, 0.1, quantizer.dim)


def _train(rank: int, folder: str) -> None:
    _join(rank, folder)
    for kind in QUANTIZERS:
        # Ranks differ in all that they may differ in: noise, first latents, passes that do not train.
        torch.manual_seed(rank)
        quantizer = small_quantizer(kind).build().train()
        quantizer.initialize(latents(quantizer, START, seed=99 + rank))
        for step in range(STEPS):
            if rank == 0:
                quantizer(latents(quantizer, 10))
                quantizer.encode(latents(quantizer, 10))
                quantizer.eval()(latents(quantizer, 10).requires_grad_())
                quantizer.train()
            for part in batch(quantizer, step).chunk(2)[rank].split(COUNT // 4):
                observe(quantizer, part)
            quantizer.update()
        save_file(quantizer.state_dict() or {"none": torch.zeros(1)}, f"{folder}/{kind.__name__}-{rank}.safetensors")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The states of all quantizers after a few steps on two ranks, two micro batches each."""
    folder = tmp_path_factory.mktemp("ranks")
    on_two_ranks(_train, str(folder))
    return folder


@pytest.mark.parametrize("kind", QUANTIZERS, ids=name_of)
def test_ranks_with_other_noise_and_other_first_latents_hold_equal_codebooks(trained: Path, kind: type) -> None:
    first, second = (load_file(trained / f"{kind.__name__}-{rank}.safetensors") for rank in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", QUANTIZERS, ids=name_of)
def test_two_ranks_with_micro_batches_learn_what_one_learns_from_all_at_once(trained: Path, kind: type) -> None:
    alone = small_quantizer(kind).build().train()
    alone.initialize(latents(alone, START, seed=99))
    for step in range(STEPS):
        observe(alone, batch(alone, step))
        alone.update()
    together = load_file(trained / f"{kind.__name__}-0.safetensors")
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(together[name], value, atol=1e-4, rtol=1e-4, msg=name)


# ---------------------------------------------------------------- the entropy of use


def entropy_gradient(quantizer: Quantizer, z: Tensor) -> tuple[Tensor, Tensor]:
    """Loss, and gradient with respect to a map in front of the quantizer, as data-parallel training averages it."""
    torch.manual_seed(0)
    encoder = nn.Linear(quantizer.dim, quantizer.dim)
    loss = quantizer(encoder(z)).loss
    loss.backward()
    return loss.detach(), encoder.weight.grad


def lopsided(quantizer: Quantizer) -> Tensor:
    """Latents whose first half uses other codes than the second: each half unevenly, both together evenly."""
    half = latents(quantizer, 200) + 1.5
    return 0.3 * torch.cat([half, -half])


def _entropy(rank: int, folder: str) -> None:
    _join(rank, folder)
    for config in (LFQConfig, BSQConfig):
        quantizer = config(bits_per_token=5, entropy=1.0).build().train()
        loss, gradient = entropy_gradient(quantizer, lopsided(quantizer).chunk(2)[rank])
        for tensor in (loss, gradient):
            dist.all_reduce(tensor)
        if rank == 0:
            save_file({"loss": loss / 2, "gradient": gradient / 2}, f"{folder}/{config.__name__}.safetensors")
    dist.destroy_process_group()


def test_the_entropy_term_of_two_ranks_is_that_of_one_with_all_latents(tmp_path: Path) -> None:
    on_two_ranks(_entropy, str(tmp_path))
    for config in (LFQConfig, BSQConfig):
        quantizer = config(bits_per_token=5, entropy=1.0).build().train()
        loss, gradient = entropy_gradient(quantizer, lopsided(quantizer))
        found = load_file(tmp_path / f"{config.__name__}.safetensors")
        torch.testing.assert_close(found["loss"], loss, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found["gradient"], gradient, atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------- the wrapper


def test_buffers_are_not_broadcast_and_unused_parameters_are_not_looked_for(tmp_path: Path) -> None:
    wrapper = make_accelerator(train_config(), tmp_path).ddp_handler
    assert wrapper is not None
    assert not wrapper.broadcast_buffers
    assert not wrapper.find_unused_parameters
