"""Quantizers: the contract that all of them keep, and the known traps of each."""

from __future__ import annotations

import copy
from math import log2, prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from processes import on_two_ranks
from tiny_tokenizers import QUANTIZERS, latents, name_of, observe, ready, small_quantizer
from torch import Tensor, nn

from vqvideo.errors import InputError
from vqvideo.models.quantizers import EMAVQ, EMAVQConfig, FSQConfig, cluster_sums, k_means, nearest, straight_through

each_quantizer = pytest.mark.parametrize("kind", QUANTIZERS, ids=name_of)


def same_state(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# ---------------------------------------------------------------- the contract


@each_quantizer
def test_shapes_types_and_ranges_are_as_promised(kind: type) -> None:
    quantizer = ready(kind)
    z = latents(quantizer, 60).reshape(3, 4, 5, quantizer.dim).requires_grad_()
    values, indices, loss = quantizer(z)
    assert (values.shape, values.dtype) == (z.shape, torch.float32)
    assert (indices.shape, indices.dtype) == ((3, 4, 5), torch.int64)
    assert loss.shape == ()
    assert loss.isfinite()
    assert 0 <= indices.min() <= indices.max() < quantizer.codebook_size
    assert quantizer.decode(indices).shape == z.shape
    assert quantizer.bits == log2(quantizer.codebook_size)


@each_quantizer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_decoded_indices_are_the_values_of_the_training_pass(kind: type, dtype: torch.dtype) -> None:
    quantizer = ready(kind)
    z = latents(quantizer, 500).to(dtype).requires_grad_()
    values, indices, _ = quantizer(z)
    torch.testing.assert_close(quantizer.decode(indices), values.detach(), atol=1e-6, rtol=0)
    assert torch.equal(quantizer.encode(z), indices)


@each_quantizer
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_and_half_precision_latents_change_no_code(kind: type, dtype: torch.dtype) -> None:
    quantizer = ready(kind, count=20_000, **({"codebook_size": 1024, "dim": 8} if kind is EMAVQConfig else {}))
    half = latents(quantizer, 4096).to(dtype)
    full = half.float()
    expected = quantizer.encode(full)
    with torch.autocast("cpu", dtype=dtype):
        for z in (half, full):
            assert torch.equal(quantizer.encode(z), expected)
            assert torch.equal(quantizer(z).indices, expected)
            assert quantizer(z).values.dtype == torch.float32
            assert quantizer(z).loss.dtype == torch.float32


@each_quantizer
def test_the_gradient_reaches_every_latent(kind: type) -> None:
    quantizer = ready(kind)
    z = (0.5 * latents(quantizer, 200)).requires_grad_()
    values, _, loss = quantizer(z)
    ((values * torch.randn(values.shape, generator=torch.Generator().manual_seed(1))).sum() + loss).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert (z.grad != 0).all()


@each_quantizer
def test_every_parameter_of_a_quantizer_learns(kind: type) -> None:
    quantizer = ready(kind)
    values, _, loss = quantizer(latents(quantizer, 4096).requires_grad_())
    (values.square().sum() + loss).backward()
    assert [name for name, p in quantizer.named_parameters() if p.grad is None or not p.grad.any()] == []


@each_quantizer
def test_the_loss_is_a_mean_over_latents(kind: type) -> None:
    quantizer = ready(kind)
    z = latents(quantizer, 100)
    torch.testing.assert_close(quantizer(z).loss, quantizer(z.repeat(7, 1)).loss, rtol=1e-5, atol=0)


@each_quantizer
@pytest.mark.parametrize("use", ["eval", "no_grad", "frozen", "encode"])
def test_nothing_but_training_changes_a_codebook(kind: type, use: str) -> None:
    quantizer = ready(kind)
    encoder = nn.Linear(quantizer.dim, quantizer.dim)
    before = copy.deepcopy(quantizer)
    if use == "frozen":
        encoder.requires_grad_(False)
        quantizer.requires_grad_(False)
    quantizer.train(use != "eval")
    with torch.set_grad_enabled(use != "no_grad"):
        z = encoder(latents(quantizer, 500))
        _ = quantizer.encode(z) if use == "encode" else quantizer(z)
        quantizer.update()
    assert same_state(quantizer, before)


@each_quantizer
def test_a_forward_pass_alone_leaves_codes_and_codebook_as_they_were(kind: type) -> None:
    quantizer = ready(kind)
    before = copy.deepcopy(quantizer)
    observe(quantizer, latents(quantizer, 500))
    assert same_state(quantizer, before)


@each_quantizer
def test_equal_statistics_make_equal_codebooks(kind: type) -> None:
    first, second = ready(kind), ready(kind)
    for step in range(3):
        for quantizer in (first, second):
            torch.manual_seed(id(quantizer) % 1000)
            observe(quantizer, 2 + latents(quantizer, 300, seed=step))
            quantizer.update()
    assert same_state(first, second)


@each_quantizer
def test_a_quantizer_restored_from_its_state_goes_on_as_if_never_stopped(kind: type) -> None:
    quantizer = ready(kind)
    observe(quantizer, 1 + latents(quantizer, 300))
    quantizer.update()
    restored = small_quantizer(kind).build().train()
    restored.load_state_dict(quantizer.state_dict())
    for step in range(3):
        for each in (quantizer, restored):
            observe(each, 2 + latents(each, 300, seed=step))
            each.update()
    assert same_state(quantizer, restored)


@each_quantizer
@pytest.mark.parametrize("bad", [-1, "k"])
def test_codes_outside_the_codebook_are_refused(kind: type, bad: int | str) -> None:
    quantizer = ready(kind)
    k = quantizer.codebook_size
    code = k if bad == "k" else int(bad)
    quantizer.check(torch.tensor([0, k - 1]))
    quantizer.check(torch.zeros(0, dtype=torch.int64))
    with pytest.raises(InputError, match=rf"codes .* found, expected 0\.\.{k - 1}"):
        quantizer.check(torch.tensor([0, code]))


def test_straight_through_is_q_forwards_and_the_identity_backwards() -> None:
    z, q = torch.tensor([0.2, -1.0], requires_grad=True), torch.tensor([1.0, 3.0], requires_grad=True)
    out = straight_through(z, q)
    out.backward(torch.tensor([5.0, 7.0]))
    torch.testing.assert_close(out.detach(), q.detach())
    assert z.grad.tolist() == [5, 7]
    assert q.grad is None


# ---------------------------------------------------------------- nearest codes and k-means


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_the_nearest_code_is_the_one_at_the_smallest_distance(chunk: int) -> None:
    rng = np.random.default_rng(0)
    z, codebook = rng.normal(size=(200, 4)), rng.normal(size=(50, 4)) * 2
    distance = ((z[:, None] - codebook[None]) ** 2).sum(axis=-1)
    found = nearest(torch.tensor(z).float(), torch.tensor(codebook).float(), chunk)
    assert found.tolist() == distance.argmin(axis=1).tolist()


def test_cluster_sums_count_and_add() -> None:
    z = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    count, total = cluster_sums(z, torch.tensor([2, 0, 2]), k=4)
    assert count.tolist() == [1, 0, 2, 0]
    assert total.tolist() == [[3, 4], [0, 0], [6, 8], [0, 0]]


def test_k_means_finds_separate_clusters_in_spite_of_an_unlucky_start() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    z = centres.repeat_interleave(200, dim=0) + 0.1 * torch.randn(600, 2, generator=generator)
    found = min(
        (k_means(z, 3, 10, torch.Generator().manual_seed(seed)) for seed in range(5)),
        key=lambda c: torch.cdist(z, c).amin(dim=1).sum(),
    )
    torch.testing.assert_close(found[nearest(centres, found)], centres, atol=0.1, rtol=0)


def test_k_means_gives_empty_clusters_a_place_in_the_data() -> None:
    z = torch.tensor([[0.0]] * 50 + [[1.0], [2.0], [3.0]])
    found = k_means(z, 4, 20, torch.Generator().manual_seed(0))
    assert set(found.flatten().tolist()) <= {0.0, 1.0, 1.5, 2.0, 2.5, 3.0}


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
    assert same_state(quantizer, after)


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


# ---------------------------------------------------------------- FSQ

LEVELS = [(8, 5, 5, 5), (7, 5, 5, 5, 5), (3,), (4, 4), (2, 3, 4), (8, 8, 8)]
each_level_set = pytest.mark.parametrize("levels", LEVELS, ids=str)


@each_level_set
def test_every_index_makes_the_round_trip(levels: tuple[int, ...]) -> None:
    fsq = FSQConfig(levels).build()
    indices = torch.arange(prod(levels))
    values = fsq.decode(indices)
    assert values.unique(dim=0).shape == (prod(levels), len(levels))
    # The latent in the middle of each cell: the inverse of the bound at the code's digits.
    digits = values * (fsq.levels // 2)
    z = torch.atanh((digits + fsq.offset) / fsq.half_range) - fsq.shift
    assert torch.equal(fsq.encode(z), indices)
    assert torch.equal(fsq(z).indices, indices)


@each_level_set
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_all_codes_are_reached_and_all_values_are_bounded(levels: tuple[int, ...], dtype: torch.dtype) -> None:
    fsq = FSQConfig(levels).build()
    z = 1.2 * latents(fsq, 200_000) - fsq.shift
    values, indices, loss = fsq(z.to(dtype))
    assert indices.unique().tolist() == list(range(prod(levels)))
    assert values.abs().max() <= 1
    assert loss == 0
    assert torch.equal(fsq.encode(torch.full((1, len(levels)), 1e4)), torch.tensor([prod(levels) - 1]))
    assert torch.equal(fsq.encode(torch.full((1, len(levels)), -1e4)), torch.tensor([0]))


@pytest.mark.parametrize("levels", [3, 5, 7])
def test_odd_levels_are_symmetric_and_have_a_zero(levels: int) -> None:
    values = FSQConfig((levels,)).build().decode(torch.arange(levels)).flatten()
    torch.testing.assert_close(values, torch.linspace(-1, 1, levels))


def test_neighbouring_indices_are_neighbouring_values_in_the_first_dimension() -> None:
    values = FSQConfig((8, 5, 5, 5)).build().decode(torch.arange(8))
    torch.testing.assert_close(values[:, 0], torch.arange(-4, 4) / 4)
    assert values[:, 1:].unique(dim=0).shape[0] == 1


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (EMAVQConfig, {"codebook_size": 1}, "codebook_size 1 and dim 8: too small"),
        (EMAVQConfig, {"dim": 0}, "codebook_size 1024 and dim 0: too small"),
        (EMAVQConfig, {"decay": 1.0}, r"decay is 1.0, expected 0 <= decay < 1"),
        (EMAVQConfig, {"decay": -0.1}, r"decay is -0.1, expected 0 <= decay < 1"),
        (FSQConfig, {"levels": ()}, "expected a list of numbers of at least 2"),
        (FSQConfig, {"levels": (8, 1)}, "expected a list of numbers of at least 2"),
    ],
)
def test_a_config_that_cannot_work_is_refused(kind: type, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(**settings)
