"""The EMA quantizer: its average is that of the paper, dead codes are revived, and ranks stay equal."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from processes import on_two_ranks
from tiny_models import same_tensors
from tiny_tokenizers import latents, observe, ready
from torch import Tensor

from vqvideo.errors import InputError
from vqvideo.models.quantizers import EMAVQ, EMAVQConfig

# ---------------------------------------------------------------- EMA


def ema(k: int = 4, dim: int = 2, **changes: Any) -> EMAVQ:
    """Codes at the given rows (0, 0), (10, 0), (20, 0), ... with an average use each; no revival."""
    quantizer = EMAVQConfig(codebook_size=k, dim=dim, **{"revive_below": 0.0, **changes}).build().train()
    quantizer.codebook.zero_()[:, 0] = 10 * torch.arange(k)
    quantizer.ema_count.fill_(1)
    quantizer.ema_sum.copy_(quantizer.codebook)
    return quantizer


def test_the_commitment_loss_is_beta_times_the_mean_squared_error() -> None:
    quantizer = ema(commitment=0.25)
    z = torch.tensor([[1.0, 0.0], [10.0, 2.0]])
    assert quantizer(z).loss.item() == pytest.approx(0.25 * (1 + 4) / 4)


def test_the_codebook_takes_no_gradient_and_no_optimizer_sees_it() -> None:
    quantizer = ready()
    values, _, loss = quantizer(latents(quantizer, 100).requires_grad_())
    (values.sum() + loss).backward()
    assert list(quantizer.parameters()) == []
    assert quantizer.codebook.grad is None
    assert not quantizer.codebook.requires_grad


def test_the_k_means_start_puts_the_codes_into_the_data_and_is_remembered() -> None:
    quantizer = EMAVQConfig(codebook_size=64, dim=4).build()
    z = 5 + 0.1 * latents(quantizer, 2000)
    quantizer.initialize(z)
    assert (quantizer.encode(z).unique().numel()) == 64
    error = (quantizer.decode(quantizer.encode(z)) - z).square().mean()
    assert error < 0.5 * z.var()
    restored = EMAVQConfig(codebook_size=64, dim=4).build()
    restored.load_state_dict(quantizer.state_dict())
    assert torch.equal(restored.encode(z), quantizer.encode(z))


def test_too_few_latents_for_a_start_are_refused() -> None:
    with pytest.raises(InputError, match="31 latents to start 32 codes from: give more clips or a smaller codebook"):
        EMAVQConfig(codebook_size=32, dim=4).build().initialize(torch.randn(31, 4))


def test_latents_are_quantised_before_the_codebook_moves() -> None:
    quantizer = ema(decay=0.0)
    old = quantizer.codebook.clone()
    values, indices, _ = quantizer(torch.tensor([[3.0, 0.0], [11.0, 1.0]], requires_grad=True))
    assert torch.equal(quantizer.codebook, old)
    torch.testing.assert_close(values.detach(), old[indices])
    quantizer.update()
    torch.testing.assert_close(quantizer.codebook[:2], torch.tensor([[3.0, 0.0], [11.0, 1.0]]))


def test_the_average_is_the_one_of_the_paper() -> None:
    quantizer = ema(k=2, decay=0.9)
    observe(quantizer, torch.tensor([[1.0, 1.0], [3.0, 0.0], [2.0, 0.0], [12.0, 0.0]]))
    quantizer.update()
    count = torch.tensor([0.9 + 0.1 * 3 * 2 / 4, 0.9 + 0.1 * 1 * 2 / 4])
    total = 0.9 * torch.tensor([[0.0, 0.0], [10.0, 0.0]]) + 0.1 * 2 / 4 * torch.tensor([[6.0, 1.0], [12.0, 0.0]])
    torch.testing.assert_close(quantizer.ema_count, count)
    torch.testing.assert_close(quantizer.codebook, total / count[:, None])


@pytest.mark.parametrize("revive_below", [0.0, 0.2])
def test_two_micro_batches_are_one_big_batch(revive_below: float) -> None:
    one, two = ready(revive_below=revive_below), ready(revive_below=revive_below)
    for step in range(3):
        z = latents(one, 400, seed=step) * torch.tensor([4.0, 1.0, 0.1, 0.1])
        observe(one, z)
        observe(two, z[:150])
        observe(two, z[150:])
        one.update()
        two.update()
    torch.testing.assert_close(two.codebook, one.codebook, atol=1e-6, rtol=0)
    torch.testing.assert_close(two.ema_count, one.ema_count, atol=1e-6, rtol=0)


def test_an_update_uses_its_statistics_once() -> None:
    quantizer = ready()
    observe(quantizer, 1 + latents(quantizer, 300))
    quantizer.update()
    after = copy.deepcopy(quantizer)
    quantizer.update()
    assert same_tensors(quantizer.state_dict(), after.state_dict())


def test_codes_without_use_stay_where_they_are() -> None:
    quantizer = ema(decay=0.9)
    start = quantizer.codebook.clone()
    for _ in range(1000):
        observe(quantizer, start[:2].repeat(8, 1))
        quantizer.update()
    assert quantizer.ema_count[2:].max() < 1e-9
    torch.testing.assert_close(quantizer.codebook, start)


def test_a_code_long_unused_comes_back_when_it_is_chosen() -> None:
    quantizer = ema(decay=0.9)
    for _ in range(500):
        observe(quantizer, quantizer.codebook[:2])
        quantizer.update()
    for _ in range(100):
        observe(quantizer, torch.tensor([[0.0, 0.0], [31.0, 1.0]]))
        quantizer.update()
    torch.testing.assert_close(quantizer.codebook[3], torch.tensor([31.0, 1.0]), atol=1e-3, rtol=0)


# ---------------------------------------------------------------- revival


def reviving(**changes: Any) -> EMAVQ:
    """Codes 2 and 3 are far from all latents and about to be found dead."""
    quantizer = ema(**{"decay": 0.9, "revive_below": 0.2, "revive_at_most": 1.0, **changes})
    quantizer.ema_count[2:] = 0.01
    quantizer.ema_sum[2:] = 0.01 * quantizer.codebook[2:]
    return quantizer


CROWD = torch.tensor([[-3.0, 1.0], [-1.0, 2.0], [1.0, -1.0], [3.0, 0.5], [9.0, 1.0], [11.0, -1.0]])


def test_a_dead_code_is_moved_onto_a_latent_of_the_batch() -> None:
    quantizer = reviving()
    observe(quantizer, CROWD)
    quantizer.update()
    distance = torch.cdist(quantizer.codebook[2:], CROWD)
    assert distance.amin(dim=1).max() == 0
    assert distance.argmin(dim=1).unique().numel() == 2


def test_a_revived_code_is_not_overwritten_by_its_old_sums() -> None:
    quantizer = reviving()
    observe(quantizer, CROWD)
    quantizer.update()
    revived = quantizer.codebook[2:].clone()
    for _ in range(5):
        quantizer.cfg = EMAVQConfig(codebook_size=4, dim=2, decay=0.9, revive_below=0.0)
        observe(quantizer, torch.cat([revived, revived, torch.tensor([[0.0, 0.0], [10.0, 0.0]])]))
        quantizer.update()
        torch.testing.assert_close(quantizer.codebook[2:], revived)


def test_a_revived_code_that_is_used_stays_and_one_that_is_not_is_replaced() -> None:
    quantizer = reviving()
    observe(quantizer, CROWD)
    quantizer.update()
    kept, dropped = quantizer.codebook[2:].clone()
    others = torch.tensor([[40.0, 40.0], [-40.0, 40.0]])
    quantizer.codebook[:2], quantizer.ema_sum[:2] = others, others * quantizer.ema_count[:2, None]
    observe(quantizer, torch.cat([others, kept[None]]))
    quantizer.update()
    torch.testing.assert_close(quantizer.codebook[2], kept)
    assert not torch.isclose(quantizer.codebook[3], dropped).all()


def test_used_codes_are_not_revived() -> None:
    quantizer = reviving()
    observe(quantizer, CROWD)
    quantizer.update()
    without = reviving(revive_below=0.0)
    observe(without, CROWD)
    without.update()
    assert torch.equal(quantizer.codebook[:2], without.codebook[:2])


@pytest.mark.parametrize(("share", "expected"), [(0.05, 1), (0.25, 4), (0.5, 8), (1.0, 14)])
def test_no_more_codes_are_revived_at_once_than_allowed(share: float, expected: int) -> None:
    quantizer = ema(k=16, revive_below=0.2, revive_at_most=share)
    quantizer.ema_count[2:] = 0.01
    quantizer.ema_sum[2:] = 0.01 * quantizer.codebook[2:]
    before = quantizer.codebook.clone()
    observe(quantizer, CROWD.repeat(4, 1) + 0.01 * latents(quantizer, 24))
    quantizer.update()
    assert (quantizer.codebook[2:] - before[2:]).abs().amax(dim=1).gt(1).sum() == expected


def test_the_threshold_of_revival_does_not_depend_on_the_batch_size() -> None:
    one, many = ready(), ready()
    for step in range(5):
        z = latents(one, 200, seed=step) * torch.tensor([3.0, 1.0, 0.1, 0.1])
        observe(one, z)
        one.update()
        observe(many, z.repeat(16, 1))
        many.update()
    torch.testing.assert_close(one.ema_count, many.ema_count, atol=1e-5, rtol=1e-5)
    assert torch.equal(one.ema_count < 0.2, many.ema_count < 0.2)


def test_revival_is_keyed_by_seed_and_step_and_not_by_global_randomness() -> None:
    def revived(seed: int, step: int, noise: int) -> Tensor:
        torch.manual_seed(noise)
        quantizer = reviving(seed=seed)
        quantizer.steps.fill_(step)
        pool = 0.1 * torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        observe(quantizer, torch.cat([pool, torch.tensor([[10.0, 0.0]])]))
        quantizer.update()
        return quantizer.codebook[2:]

    assert torch.equal(revived(0, 5, noise=1), revived(0, 5, noise=2))
    assert not torch.equal(revived(0, 5, noise=1), revived(0, 6, noise=1))
    assert not torch.equal(revived(0, 5, noise=1), revived(1, 5, noise=1))


def test_revival_brings_a_collapsed_codebook_into_use() -> None:
    """All codes but one start far away; without revival one code would serve for ever."""
    used = {}
    for revive_below in (0.0, 0.2):
        quantizer = EMAVQConfig(codebook_size=32, dim=4, revive_below=revive_below).build().train()
        quantizer.codebook[1:] += 100
        quantizer.ema_sum.copy_(quantizer.codebook)
        for step in range(150):
            observe(quantizer, latents(quantizer, 512, seed=step))
            quantizer.update()
        used[revive_below] = quantizer.encode(latents(quantizer, 5000, seed=999)).unique().numel()
    assert used[0.0] == 1
    assert used[0.2] >= 30


# ---------------------------------------------------------------- ranks


def _train_on_a_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    quantizer = ready()
    for step in range(4):
        z = latents(quantizer, 400, seed=step) * torch.tensor([4.0, 1.0, 0.1, 0.1])
        observe(quantizer, z.chunk(2)[rank])
        quantizer.update()
    torch.save(quantizer.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_learn_the_codebook_of_one_and_stay_equal_bit_by_bit(tmp_path: Path) -> None:
    on_two_ranks(_train_on_a_rank, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = ready()
    start = alone.codebook.clone()
    for step in range(4):
        observe(alone, latents(alone, 400, seed=step) * torch.tensor([4.0, 1.0, 0.1, 0.1]))
        alone.update()
    assert (alone.codebook - start).abs().amax(dim=1).gt(0.5).any(), "nothing was revived"
    torch.testing.assert_close(first["codebook"], alone.codebook, atol=1e-5, rtol=1e-5)
