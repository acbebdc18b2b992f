"""Quantizers: the contract that all of them keep, and the known traps of each."""

from __future__ import annotations

import copy
from math import log2
from typing import Any

import numpy as np
import pytest
import torch
from tiny_tokenizers import QUANTIZERS, latents, name_of, observe, ready, small_quantizer
from torch import nn

from vqvideo.errors import InputError
from vqvideo.models.quantizers import EMAVQConfig, FSQConfig, cluster_sums, k_means, nearest, straight_through

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


@each_quantizer
def test_latents_are_nearer_to_their_own_code_than_to_others(kind: type) -> None:
    quantizer = ready(kind)
    z = latents(quantizer, 300)
    codes = quantizer.encode(z)
    found = quantizer.distance(z, codes)
    assert found.shape == codes.shape
    # No other code is nearer, where codes are chosen one by one and not by stages.
    others = quantizer.distance(z, (codes + 1) % quantizer.codebook_size)
    assert (found <= others + 1e-6).float().mean() > 0.9
    assert found.mean() < 0.7 * others.mean()
