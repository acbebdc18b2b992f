"""Same inputs, same state, same results as the field's reference, the package vector-quantize-pytorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vqvideo.models.quantizers import EMAVQ, CosineVQConfig, EMAVQConfig, FSQConfig, LFQConfig, ResidualVQConfig

reference = pytest.importorskip("vector_quantize_pytorch")

STEPS, COUNT, DIM, CODES = 20, 512, 4, 16


def batches(dim: int = DIM) -> list[Tensor]:
    """Clustered latents that drift from step to step, (n, d) each."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CODES, dim, generator=generator) * 2
    rows = torch.arange(COUNT) % CODES
    drift = torch.randn(CODES, dim, generator=generator) * 0.02
    noise = (torch.randn(COUNT, dim, generator=generator) * 0.3 for _ in range(STEPS))
    return [centres[rows] + step * drift[rows] + n for step, n in enumerate(noise)]


def same_state(ours: EMAVQ, codebook: torch.nn.Module) -> None:
    """Gives both the same codes and statistics. Ours count uses as shares of the average use."""
    share = CODES / COUNT
    embed = codebook.embed[0].detach().clone()
    ours.codebook.copy_(embed)
    ours.ema_count.fill_(share)
    ours.ema_sum.copy_(embed * share)


@pytest.mark.parametrize(("config", "cosine"), [(EMAVQConfig, False), (CosineVQConfig, True)])
def test_ema_quantizers_agree_over_twenty_training_steps(config: type, cosine: bool) -> None:
    torch.manual_seed(0)
    ours = config(codebook_size=CODES, dim=DIM, decay=0.9, revive_below=0.0, commitment=0.25).build()
    theirs = reference.VectorQuantize(
        dim=DIM, codebook_size=CODES, decay=0.9, commitment_weight=0.25, use_cosine_sim=cosine, rotation_trick=False
    )
    start = torch.nn.functional.normalize(batches()[0][:CODES], dim=1) if cosine else batches()[0][:CODES]
    theirs._codebook.embed.data.copy_(start[None])
    theirs._codebook.embed_avg.data.copy_(start[None])
    same_state(ours, theirs._codebook)
    for z in batches():
        left, right = z.clone().requires_grad_(), z.clone()[None].requires_grad_()
        mine = ours(left)
        ours.update()
        values, indices, loss = theirs(right)
        assert torch.equal(mine.indices, indices[0])
        torch.testing.assert_close(mine.values, values[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(mine.loss, loss.squeeze(), atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.codebook, theirs._codebook.embed[0], atol=1e-5, rtol=0)
        (mine.values.sum() + mine.loss).backward()
        (values.sum() + loss.sum()).backward()
        torch.testing.assert_close(left.grad, right.grad[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (7, 5, 5, 5, 5), (4, 3)])
def test_fsq_agrees(levels: tuple[int, ...]) -> None:
    ours, theirs = FSQConfig(levels=levels).build(), reference.FSQ(levels=list(levels))
    z = torch.randn(1000, len(levels), generator=torch.Generator().manual_seed(0)) * 2
    left, right = z.clone().requires_grad_(), z.clone()[None].requires_grad_()
    mine = ours(left)
    values, indices = theirs(right)
    assert torch.equal(mine.indices, indices[0].long())
    torch.testing.assert_close(mine.values, values[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.decode(mine.indices), theirs.indices_to_codes(indices)[0], atol=1e-6, rtol=0)
    mine.values.square().sum().backward()
    values.square().sum().backward()
    torch.testing.assert_close(left.grad, right.grad[0], atol=1e-5, rtol=0)


def test_lfq_agrees_loss_and_entropy_included() -> None:
    ours = LFQConfig(bits_per_token=6, commitment=0.25, entropy=0.1, inverse_temperature=2.0).build()
    theirs = reference.LFQ(
        dim=6, codebook_size=64, entropy_loss_weight=0.1, commitment_loss_weight=0.25, diversity_gamma=1.0
    ).train()
    for z in batches(6):
        left, right = z.clone().requires_grad_(), z.clone()[None].requires_grad_()
        mine = ours(left)
        values, indices, loss = theirs(right, inv_temperature=2.0)
        assert torch.equal(mine.indices, indices[0])
        torch.testing.assert_close(mine.values, values[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(mine.loss, loss.squeeze(), atol=1e-5, rtol=0)
        mine.loss.backward()
        loss.sum().backward()
        torch.testing.assert_close(left.grad, right.grad[0], atol=1e-5, rtol=0)


def test_residual_quantizers_agree_over_twenty_training_steps() -> None:
    torch.manual_seed(0)
    stage = EMAVQConfig(codebook_size=CODES, dim=DIM, decay=0.9, revive_below=0.0, commitment=1.0)
    ours = ResidualVQConfig(stages=2, stage=stage).build()
    theirs = reference.ResidualVQ(
        dim=DIM, codebook_size=CODES, num_quantizers=2, decay=0.9, commitment_weight=1.0, rotation_trick=False
    )
    for mine, layer in zip(ours.stages, theirs.layers, strict=True):
        start = torch.randn(CODES, DIM, generator=torch.Generator().manual_seed(1)) * (
            2 if mine is ours.stages[0] else 0.4
        )
        layer._codebook.embed.data.copy_(start[None])
        layer._codebook.embed_avg.data.copy_(start[None])
        same_state(mine, layer._codebook)
    for z in batches():
        mine = ours(z.clone().requires_grad_())
        ours.update()
        values, indices, losses = theirs(z[None])
        digits = torch.stack([mine.indices % CODES, mine.indices // CODES], dim=-1)
        assert torch.equal(digits, indices[0])
        torch.testing.assert_close(mine.values, values[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(mine.loss, losses.sum(), atol=1e-5, rtol=1e-5)
