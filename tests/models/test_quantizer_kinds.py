"""What is particular to each kind of quantizer; what they share is tested in test_quantizers."""

from __future__ import annotations

import copy
from itertools import product
from math import prod

import pytest
import torch
import torch.nn.functional as F

from vqvideo.errors import InputError
from vqvideo.models.quantizers import (
    BSQConfig,
    CosineVQConfig,
    EMAVQConfig,
    FSQConfig,
    GradientVQConfig,
    LFQConfig,
    ResidualVQConfig,
    SimVQConfig,
    rotated,
)
from vqvideo.training.config import TrainConfig
from vqvideo.training.optimizers import make_optimizer


def latents(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the rotation trick


def test_the_rotation_gives_the_code_forward_and_turns_the_gradient_as_it_turns_the_latent() -> None:
    z, q = latents(1, 4).requires_grad_(), latents(1, 4, seed=1)
    out = rotated(z, q)
    assert torch.equal(out, q)
    jacobian = torch.stack([torch.autograd.grad(out[0, i], z, retain_graph=True)[0][0] for i in range(4)])
    # A rotation times |q| / |z|: it maps z onto q and keeps all angles.
    assert torch.allclose(jacobian @ z[0], q[0], atol=1e-5)
    scale = q.norm() / z.norm()
    assert torch.allclose(jacobian @ jacobian.T, scale**2 * torch.eye(4), atol=1e-5)
    assert torch.det(jacobian) > 0


@pytest.mark.parametrize(("z", "q"), [([0.0, 0.0], [1.0, 0.0]), ([1.0, 0.0], [-1.0, 0.0]), ([1.0, 0.0], [0.0, 0.0])])
def test_the_rotation_stays_finite_where_it_is_undefined(z: list[float], q: list[float]) -> None:
    latent = torch.tensor([z], requires_grad=True)
    out = rotated(latent, torch.tensor([q]))
    out.sum().backward()
    assert out.tolist() == [q]
    assert latent.grad is not None
    assert latent.grad.isfinite().all()


@pytest.mark.parametrize("config", [EMAVQConfig, CosineVQConfig, GradientVQConfig, SimVQConfig])
def test_the_gradient_is_a_choice_of_the_nearest_neighbour_quantizers(config: type) -> None:
    grads = []
    for how in ("straight_through", "rotation"):
        quantizer = config(codebook_size=8, dim=4, gradient=how, commitment=0.0).build().eval()
        z = latents(16, 4).requires_grad_()
        out = quantizer(z)
        assert torch.allclose(out.values, quantizer.decode(out.indices), atol=1e-6)
        (out.values * latents(16, 4, seed=3)).sum().backward()
        grads.append(z.grad)
    assert not torch.allclose(grads[0], grads[1])


# ---------------------------------------------------------------- cosine


def test_cosine_codes_stay_on_the_sphere_and_ignore_the_length_of_a_latent() -> None:
    quantizer = CosineVQConfig(codebook_size=16, dim=4).build()
    quantizer.initialize(latents(200, 4))
    for seed in range(5):
        quantizer(latents(64, 4, seed).requires_grad_())
        quantizer.update()
    assert torch.allclose(quantizer.codebook.norm(dim=1), torch.ones(16), atol=1e-5)
    z = latents(50, 4, seed=9)
    assert torch.equal(quantizer.encode(z), quantizer.encode(7 * z))
    best = (F.normalize(z, dim=1) @ quantizer.codebook.T).argmax(dim=1)
    assert torch.equal(quantizer.encode(z), best)


# ---------------------------------------------------------------- the original


def test_the_original_loss_is_codebook_plus_beta_commitment() -> None:
    quantizer = GradientVQConfig(codebook_size=8, dim=4, commitment=0.5).build()
    z = latents(32, 4).requires_grad_()
    out = quantizer(z)
    q = quantizer.codebook[out.indices]
    assert out.loss.item() == pytest.approx(1.5 * F.mse_loss(z, q).item(), rel=1e-6)
    out.loss.backward()
    size = z.numel()
    assert torch.allclose(z.grad, 0.5 * 2 * (z - q).detach() / size, atol=1e-7)
    expected = torch.zeros(8, 4).index_add_(0, out.indices, (2 * (q - z) / size).detach())
    assert torch.allclose(quantizer.codebook.grad, expected, atol=1e-7)


@pytest.mark.parametrize("kind", [GradientVQConfig, SimVQConfig])
def test_weight_decay_draws_no_learnt_codes_together_not_even_those_of_a_copied_model(kind: type) -> None:
    quantizer = copy.deepcopy(kind(codebook_size=8, dim=4).build())
    decayed, plain = make_optimizer(quantizer, TrainConfig(weight_decay=0.5)).param_groups
    assert decayed["params"] == []
    assert plain["weight_decay"] == 0


def test_gradient_steps_bring_the_codes_to_the_latents() -> None:
    quantizer = GradientVQConfig(codebook_size=16, dim=2).build()
    z = latents(400, 2)
    quantizer.initialize(z)
    fitted = quantizer(z).loss.item()
    with torch.no_grad():
        quantizer.codebook.add_(0.5)
    optimizer = torch.optim.Adam(quantizer.parameters(), 0.05)
    assert quantizer(z).loss.item() > 1.3 * fitted
    for _ in range(60):
        optimizer.zero_grad()
        quantizer(z).loss.backward()
        optimizer.step()
    assert quantizer(z).loss.item() < 1.05 * fitted


# ---------------------------------------------------------------- SimVQ


def test_one_gradient_of_simvq_moves_every_code_and_its_base_never_moves() -> None:
    quantizer = SimVQConfig(codebook_size=16, dim=4).build()
    before, base = quantizer.codes().detach().clone(), quantizer.frozen.clone()
    optimizer = torch.optim.SGD(quantizer.parameters(), 1.0)
    quantizer(latents(2, 4)).loss.backward()
    optimizer.step()
    assert ((quantizer.codes() - before).abs().sum(dim=1) > 0).all()
    assert torch.equal(quantizer.frozen, base)


def test_simvq_starts_with_the_spread_of_the_latents() -> None:
    quantizer = SimVQConfig(codebook_size=4096, dim=3).build()
    z = latents(5000, 3) * torch.tensor([0.1, 1.0, 5.0]) + 2.0
    quantizer.initialize(z)
    codes = quantizer.codes()
    assert torch.allclose(codes.mean(dim=0), z.mean(dim=0), atol=0.3)
    assert torch.allclose(codes.std(dim=0) / z.std(dim=0), torch.ones(3), atol=0.1)


# ---------------------------------------------------------------- bits


@pytest.mark.parametrize("config", [LFQConfig, BSQConfig])
def test_every_code_of_a_bit_quantizer_is_its_own_corner(config: type) -> None:
    quantizer = config(bits_per_token=5).build()
    codes = torch.arange(32)
    corners = quantizer.decode(codes)
    assert torch.equal(quantizer.encode(corners), codes)
    assert {tuple(c) for c in corners.sign().tolist()} == set(product((-1.0, 1.0), repeat=5))
    assert quantizer.bits == 5


def test_bsq_codes_have_length_one_and_its_error_is_bounded() -> None:
    quantizer = BSQConfig(bits_per_token=8).build().eval()
    assert torch.allclose(quantizer.decode(torch.arange(256)).norm(dim=1), torch.ones(256), atol=1e-6)
    z = latents(300, 8) * 100
    out = quantizer(z)
    assert ((F.normalize(z, dim=1) - out.values).norm(dim=1) < 2**0.5).all()


@pytest.mark.parametrize("bits", [1, 4, 5])
def test_the_entropy_term_of_lfq_is_that_of_the_full_table_of_codes(bits: int) -> None:
    cfg = LFQConfig(bits_per_token=bits, inverse_temperature=0.7)
    quantizer = cfg.build()
    z, corners = latents(20, bits), quantizer.decode(torch.arange(2**bits))
    p = (-cfg.inverse_temperature * torch.cdist(z, corners).square()).softmax(dim=1)
    own = -(p * p.log()).sum(dim=1).mean()
    overall = -(p.mean(dim=0) * p.mean(dim=0).log()).sum()
    assert quantizer.entropy_loss(z).item() == pytest.approx((own - overall).item(), abs=1e-4)


def test_the_entropy_of_use_of_bsq_is_a_bound_from_above() -> None:
    exact, bound = LFQConfig(bits_per_token=4).build(), BSQConfig(bits_per_token=4).build()
    ones = latents(50, 4).sigmoid()
    assert bound.entropy_of_use(ones) >= exact.entropy_of_use(ones)
    even = torch.full((50, 4), 0.5)
    assert bound.entropy_of_use(even).item() == pytest.approx(exact.entropy_of_use(even).item(), rel=1e-5)


def test_the_entropy_term_prefers_sure_latents_and_even_use() -> None:
    quantizer = LFQConfig(bits_per_token=3).build()
    even = quantizer.decode(torch.arange(8))
    assert quantizer.entropy_loss(even) < quantizer.entropy_loss(0.001 * even)
    assert quantizer.entropy_loss(even) < quantizer.entropy_loss(even[:1].expand(8, -1))


def test_too_many_bits_are_refused() -> None:
    with pytest.raises(InputError, match="bits_per_token is 40, expected 1 to 24"):
        LFQConfig(bits_per_token=40)


# ---------------------------------------------------------------- residual


def test_every_stage_of_a_residual_quantizer_reduces_what_is_left() -> None:
    z = latents(4000, 4)
    errors = []
    for stages in (1, 2, 3):
        quantizer = ResidualVQConfig(stages=stages, stage=EMAVQConfig(codebook_size=16, dim=4)).build().eval()
        quantizer.initialize(z)
        errors.append(F.mse_loss(quantizer.decode(quantizer.encode(z)), z).item())
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]


def test_residual_codes_are_numbers_whose_digits_are_the_stages_codes() -> None:
    quantizer = ResidualVQConfig(stages=2, stage=EMAVQConfig(codebook_size=4, dim=3)).build()
    quantizer.initialize(latents(100, 3))
    codes = torch.arange(16)
    expected = quantizer.stages[0].codebook[codes % 4] + quantizer.stages[1].codebook[codes // 4]
    assert torch.allclose(quantizer.decode(codes), expected)
    assert quantizer.codebook_size == 16
    assert quantizer.bits == 4


def test_residual_stages_are_updated_together() -> None:
    quantizer = ResidualVQConfig(stages=2, stage=EMAVQConfig(codebook_size=4, dim=3)).build()
    quantizer.initialize(latents(100, 3))
    before = [stage.codebook.clone() for stage in quantizer.stages]
    quantizer(latents(64, 3, seed=1).requires_grad_())
    quantizer.update()
    assert all(not torch.equal(a, b.codebook) for a, b in zip(before, quantizer.stages, strict=True))


def test_a_residual_codebook_too_large_for_a_prior_is_refused() -> None:
    with pytest.raises(InputError, match=r"3 stages of 1024 codes, expected .* 2\^24"):
        ResidualVQConfig(stages=3, stage=EMAVQConfig(codebook_size=1024))


def test_more_stages_than_can_be_counted_are_refused_at_once() -> None:
    with pytest.raises(InputError, match=r"1000000000000 stages of \d+ codes, expected .* 2\^24"):
        ResidualVQConfig(stages=10**12)


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
    z = 1.2 * latents(200_000, fsq.dim) - fsq.shift
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
