"""On a GPU that has no float64, such as Apple's, a world is trained and dreams as on any other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import torch
from fake_gpu import GPU, FakeGpu
from imagined import dreams, some_starts, some_world
from tiny_models import STEERING, noise_frames, tiny_prior
from tiny_tokenizers import QUANTIZERS, name_of, noise, small_vqvae
from torch import Tensor

from vqvideo.models import device
from vqvideo.models.prior import HeadConfig, Sampling
from vqvideo.models.quantizers.whitening import inverse_root
from vqvideo.models.rows import RowStreams, uniform

HEADS = pytest.mark.parametrize("head", get_args(HeadConfig), ids=name_of)


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models and tensors can be moved to `GPU`; whatever is in float64 there is a TypeError."""
    monkeypatch.setattr(device, "WITHOUT_FLOAT64", {GPU.type})
    with FakeGpu(monkeypatch):
        yield


@HEADS
@pytest.mark.parametrize("how", [Sampling(), Sampling(0.9, top_k=4, top_p=0.3, guidance=2.0)], ids=str)
def test_a_world_dreams(head: type, how: Sampling) -> None:
    world = some_world(space=STEERING)
    world.prior = tiny_prior(world.prior.spec, world.vqvae.codebook, head=head()).requires_grad_(False)
    dream = world.to(GPU).imagine(noise_frames(2, 5), np.ones((2, 12, 2)), sampling=how, seed=1)
    assert dream.codes.shape == (2, 4, 2, 2)
    assert dream.rewards.isfinite().all()
    assert world.vqvae.encode(np.zeros((1, 3, 3, 16, 16))).shape == (1, 2, 2, 2)


@pytest.mark.parametrize("tensors", [False, True])
def test_an_imagined_env_takes_steps(tensors: bool) -> None:
    envs = dreams(some_world(space=STEERING).to(GPU), output="torch" if tensors else "numpy", autoreset_mode="SameStep")
    envs.reset(seed=0)
    envs.action_space.seed(0)
    for _ in range(6):
        actions: Any = envs.action_space.sample()
        _, rewards, *_ = envs.step(torch.as_tensor(actions).float().to(GPU) if tensors else actions)
        assert torch.as_tensor(rewards).dtype == (torch.float32 if tensors else torch.float64)


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=name_of)
def test_a_tokenizer_trains_and_counts_its_codes(quantizer: type) -> None:
    vqvae = small_vqvae(quantizer=quantizer).train().to(GPU)
    vqvae(noise(4, 5).to(GPU), noise(4, 1).to(GPU)).loss.backward()
    vqvae.after_step()
    assert vqvae.take_usage()["codes_used"] > 0
    assert vqvae.eval().encode(noise(2, 5).to(GPU)).shape == (2, 3, 4, 4)


@HEADS
def test_a_prior_trains(head: type) -> None:
    prior = tiny_prior(head=head()).train().to(GPU)
    codes, actions = torch.randint(16, (4, 4, 2, 2)), torch.randint(5, (4, 3, 2, 1)).float()
    output = prior(*(part.to(GPU) for part in (codes, actions, torch.rand(4, 3), torch.rand(4, 3) < 0.5)))
    output.loss.backward()
    assert output.loss.isfinite()


def test_a_root_is_computed_in_double_precision_all_the_same() -> None:
    z = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    covariance = z.T @ z / 64
    assert inverse_root(covariance.to(GPU)).tolist() == inverse_root(covariance).tolist()


def test_rows_have_the_numbers_of_other_devices_less_their_last_digits() -> None:
    def drawn(where: torch.device) -> Tensor:
        rows = RowStreams(3, where)
        rows.seed(torch.arange(3), torch.tensor([5, 6, 7]))
        rows.begin_event(torch.ones(3, dtype=torch.bool))
        return torch.tensor(rows.uniform((3, 1000)).tolist(), dtype=torch.float64)

    there, here = drawn(GPU), drawn(torch.device("cpu"))
    assert ((here - there) * 2**24).floor().abs().max() == 0
    assert there.max() < 1


def test_numbers_of_a_whole_batch_are_below_1() -> None:
    numbers = uniform((4096,), torch.Generator().manual_seed(0), GPU)
    assert numbers.dtype == torch.float32
    assert numbers.max() < 1


def test_the_largest_number_below_1_picks_the_last_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five times it is five in float32."""
    world = some_world()
    envs = dreams(world, starts=some_starts(world, 5))
    monkeypatch.setattr(RowStreams, "uniform", lambda self, shape, **_: torch.full(shape, 1 - 2**-24))
    _, infos = envs.reset(seed=0)
    assert infos["start"].tolist() == [4, 4, 4]
