"""Usage of a codebook: one count behind all figures, over batches, ranks and the steps between two log lines."""

from __future__ import annotations

import copy
import json
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import on_two_ranks
from tiny_models import same_tensors, tiny_store, tiny_vqvae
from tiny_tokenizers import QUANTIZERS, name_of, noise, small_vqvae

from vqvideo.data.clips import Clips
from vqvideo.data.store import Store
from vqvideo.evaluation.tokenizer import evaluate_tokenizer
from vqvideo.models.quantizers import CodeUsage
from vqvideo.models.tokenizer import VQVAE

MINUTE = timedelta(minutes=1)
"""Processes that wait for each other in vain fail after this time."""
each_quantizer = pytest.mark.parametrize("kind", QUANTIZERS, ids=name_of)


def test_usage_is_the_share_of_codes_that_occur_and_bits_are_the_entropy_of_the_counts() -> None:
    usage = CodeUsage(8)
    usage.add(torch.tensor([[0, 0], [1, 2]]))
    usage.add(torch.tensor([0, 0, 3, 3]))
    assert usage.counts.tolist() == [4, 1, 1, 2, 0, 0, 0, 0]
    assert usage.counts.dtype == torch.int64
    assert usage.summary() == pytest.approx({"codes_used": 0.5, "effective_bits": 1.75, "perplexity": 2**1.75})


def test_a_hundred_batches_are_judged_as_one_and_not_each_alone() -> None:
    """A batch of 256 latents can show no more than 256 of 1,024 evenly used codes."""
    codes = torch.randint(1024, (100, 256), generator=torch.Generator().manual_seed(0))
    window, single = CodeUsage(1024), CodeUsage(1024)
    single.add(codes[0])
    for batch in codes:
        window.add(batch)
    assert single.summary()["perplexity"] < 256
    assert window.summary()["perplexity"] > 950
    assert window.summary()["codes_used"] == 1


def test_nothing_counted_is_no_usage() -> None:
    summary = CodeUsage(4).summary()
    assert summary["codes_used"] == 0
    assert torch.tensor([summary["effective_bits"], summary["perplexity"]]).isnan().all()


# ---------------------------------------------------------------- between two lines of the log


@each_quantizer
def test_a_tokenizer_counts_the_codes_of_its_training_passes_since_the_last_question(kind: type) -> None:
    vqvae = small_vqvae(quantizer=kind)
    expected = CodeUsage(vqvae.quantizer.codebook_size)
    for seed in range(2):
        frames = noise(4, 5, seed)
        expected.add(vqvae.eval().encode(frames))
        vqvae.train()(frames)
    assert vqvae.take_usage() == expected.summary()
    assert vqvae.take_usage()["codes_used"] == 0


def test_passes_that_do_not_train_are_not_counted() -> None:
    vqvae = small_vqvae().train()
    with torch.no_grad():
        vqvae(noise(2, 5))
    vqvae.encode(noise(2, 5))
    vqvae.eval()(noise(2, 5))
    assert vqvae.take_usage()["codes_used"] == 0


def test_counting_is_no_part_of_a_checkpoint() -> None:
    vqvae = small_vqvae().train()
    before = copy.deepcopy(vqvae.state_dict())
    vqvae(noise(2, 5))
    assert same_tensors(vqvae.state_dict(), before)


# ---------------------------------------------------------------- ranks


def _count_on_a_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=MINUTE)
    counted = small_vqvae().train()
    counted(noise(8, 5).chunk(2)[rank])
    clips = Clips(Store.open(Path(folder) / "store"), "held_out", 5)
    vqvae = tiny_vqvae()
    found = {
        "trained": counted.take_usage(),
        # A rank that saw nothing still takes part in the sum.
        "unequal": counted.take_usage() if rank else _after_one_more(counted),
        "together": evaluate_tokenizer(vqvae, clips, 5, batch=2, rank=rank, world=2),
        "alone": evaluate_tokenizer(vqvae, clips, 5, batch=2) if rank == 0 else {},
        "few": evaluate_tokenizer(vqvae, clips, 1, rank=rank, world=2),
    }
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def _after_one_more(vqvae: VQVAE) -> dict[str, float]:
    vqvae(noise(2, 5))
    return vqvae.take_usage()


def test_two_ranks_report_the_figures_of_one(tmp_path: Path) -> None:
    clips = Clips(tiny_store(tmp_path / "store"), "held_out", 5)
    on_two_ranks(_count_on_a_rank, str(tmp_path))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    alone = small_vqvae().train()
    alone(noise(8, 5))
    assert first["trained"] == second["trained"] == alone.take_usage()
    assert first["unequal"] == second["unequal"]
    assert first["unequal"]["codes_used"] > 0
    expected = evaluate_tokenizer(tiny_vqvae(), clips, 5, batch=2)
    assert first["together"] == second["together"] == pytest.approx(expected, abs=1e-6)
    assert first["alone"] == pytest.approx(expected, abs=1e-6)
    assert first["few"] == second["few"] == pytest.approx(evaluate_tokenizer(tiny_vqvae(), clips, 1), abs=1e-6)
