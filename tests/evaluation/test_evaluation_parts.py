"""Figures of tokenizer and prior: right where the truth is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_gpu import GPU, FakeGpu
from tiny_models import make_spec, tiny_prior, tiny_store, tiny_vqvae, tiny_world
from torch import Tensor

from vqvideo.data.clips import Clips, stack_frames
from vqvideo.data.codes import CodeArrays, CodeClips
from vqvideo.evaluation.metrics import psnr
from vqvideo.evaluation.prior import code_bits, evaluate_prior
from vqvideo.evaluation.speed import imagination_speed
from vqvideo.evaluation.tokenizer import evaluate_tokenizer
from vqvideo.models.pixels import to_unit
from vqvideo.models.prior import HeadConfig, MaskedHeadConfig, ParallelHeadConfig, Prior, PriorOutput


def test_the_tokenizers_figures_are_means_over_all_frames(tmp_path: Path) -> None:
    vqvae = tiny_vqvae()
    clips = Clips(tiny_store(tmp_path), "held_out", 5)
    figures = evaluate_tokenizer(vqvae, clips, 6, batch=4)
    frames = stack_frames(clips, clips.spread(6).tolist())
    codes = vqvae.encode(frames)
    counts = torch.bincount(codes.flatten(), minlength=16).double()
    p = counts[counts > 0] / counts.sum()
    assert figures["psnr_db"] == pytest.approx(psnr(vqvae.decode(codes), to_unit(frames)).mean().item(), abs=1e-4)
    assert figures["codes_used"] == pytest.approx(len(p) / 16)
    assert figures["effective_bits"] == pytest.approx(-(p * p.log2()).sum().item(), abs=1e-6)
    assert figures["perplexity"] == pytest.approx(2 ** figures["effective_bits"])


def test_a_tokenizer_is_measured_on_a_gpu_without_float64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = Clips(tiny_store(tmp_path), "held_out", 5)
    expected = evaluate_tokenizer(tiny_vqvae(), clips, 6, batch=4)
    with FakeGpu(monkeypatch):
        vqvae = tiny_vqvae().to(GPU)
        assert vqvae.device == GPU
        assert evaluate_tokenizer(vqvae, clips, 6, batch=4) == pytest.approx(expected)


def code_clips(rewards: float = 1.0, ends: bool = False, beyond: bool = False) -> CodeClips:
    """Twelve steps of random codes under action 0."""
    terminated = np.zeros(12, bool)
    terminated[-1] = ends
    alternating = (np.arange(12) % 2 * rewards).astype(np.float32)
    codes = np.random.default_rng(0).integers(16, size=(12, 2, 2), dtype=np.int32)
    actions, starts = np.zeros((12, 2, 1), np.float32), np.array([0, 12])
    return CodeClips(
        [CodeArrays(codes, actions, alternating, terminated, starts, np.zeros(1, np.int64))], 4, beyond=beyond
    )


def test_a_prior_that_knows_nothing_needs_log_k_nats_per_token() -> None:
    prior = tiny_prior()
    with torch.no_grad():
        prior.head.out.weight.zero_()
    figures = evaluate_prior(prior, code_clips(), 9, batch=4)
    assert figures["token_nats"] == pytest.approx(math.log(16), abs=1e-5)
    assert figures["bits_per_frame"] == pytest.approx(math.log2(16) * 4 / 2, abs=1e-4)


def test_the_priors_figures_do_not_depend_on_the_batch() -> None:
    prior, clips = tiny_prior(), code_clips(ends=True)
    small, large = evaluate_prior(prior, clips, 9, batch=2), evaluate_prior(prior, clips, 9, batch=9)
    assert small == pytest.approx(large, abs=1e-5)
    assert small["termination_rate"] == pytest.approx(1 / 11), "each of the eleven steps counts once"


def test_what_is_beyond_an_end_is_not_judged() -> None:
    prior, clips = tiny_prior(), code_clips(ends=True, beyond=True)
    small, large = (evaluate_prior(prior, clips, len(clips), batch=batch) for batch in (2, 11))
    assert len(clips) == 9 + 2
    assert small == pytest.approx(large, abs=1e-5)
    assert small["termination_rate"] == pytest.approx(1 / 11)
    assert small["bits_per_frame"] == pytest.approx(small["token_nats"] * 4 / math.log(2) / 2, rel=1e-5)


def test_without_any_end_the_precision_of_ends_is_not_a_number() -> None:
    figures = evaluate_prior(tiny_prior(), code_clips(), 9)
    assert math.isnan(figures["termination_ap"])
    assert figures["termination_rate"] == 0


@pytest.mark.parametrize("missing", ["rewards", "ends"])
def test_what_was_not_recorded_is_not_judged(missing: str) -> None:
    names = set(evaluate_prior(tiny_prior(make_spec(missing=(missing,))), code_clips(), 9))
    kinds = {"rewards": "reward_", "ends": "termination_"}
    assert {kind for kind, begin in kinds.items() if any(name.startswith(begin) for name in names)} == {*kinds} - {
        missing
    }


def test_rewards_are_judged_beside_their_own_spread() -> None:
    figures = evaluate_prior(tiny_prior(make_spec()), code_clips(rewards=2.0), 9)
    (mean,) = [value for name, value in figures.items() if name.startswith("reward_") and name.endswith("_of_mean")]
    assert mean == pytest.approx(1.0, abs=0.01)


def test_a_prediction_is_judged_by_its_bias_and_its_slope(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, clips = tiny_prior(), code_clips(rewards=2.0)
    forward = Prior.forward

    def halved(self: Prior, *, rewards: Tensor, **others: Any) -> PriorOutput:
        output = forward(self, rewards=rewards, **others)
        return output._replace(reward=0.5 * rewards + 3, termination=torch.full_like(rewards, -20.0))

    monkeypatch.setattr(Prior, "forward", halved)
    figures = evaluate_prior(prior, clips, 9)
    reward = torch.stack([clips[i]["rewards"] for i in range(9)])
    assert figures["reward_slope"] == pytest.approx(2, abs=1e-5)
    weights = torch.stack([clips[i]["weights"] for i in range(9)])
    assert figures["reward_bias"] == pytest.approx(((3 - 0.5 * reward) * weights).mean().item(), abs=1e-5)
    assert figures["termination_ece"] == pytest.approx(0, abs=1e-6)


def test_bits_per_dim_are_bits_per_frame_over_its_channels_and_need_its_size() -> None:
    prior, clips = tiny_prior(), code_clips()
    figures = evaluate_prior(prior, clips, 9, frame_size=(16, 20))
    assert figures["bits_per_dim"] == pytest.approx(figures["bits_per_frame"] / (3 * 16 * 20))
    assert "bits_per_dim" not in evaluate_prior(prior, clips, 9)


@pytest.mark.parametrize(
    ("head", "kind"), [(ParallelHeadConfig(), "exact"), (MaskedHeadConfig(layers=1, heads=2), "bound")]
)
def test_the_figures_of_every_head_repeat_and_leave_the_randomness_of_a_training_alone(
    head: HeadConfig, kind: str
) -> None:
    prior, clips = tiny_prior(head=head), code_clips(ends=True)
    before = torch.get_rng_state()
    one, two = (evaluate_prior(prior, clips, 9) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert one == two
    assert one["bits_per_frame"] > 0
    assert all(isinstance(value, float) for value in one.values())
    assert code_bits(prior, clips, [0])[1] == kind


def test_a_prior_is_measured_on_a_gpu_without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, clips = tiny_prior(head=MaskedHeadConfig(layers=1, heads=2)), code_clips(ends=True)
    expected = evaluate_prior(prior, clips, 9)
    with FakeGpu(monkeypatch):
        assert evaluate_prior(prior.to(GPU), clips, 9) == pytest.approx(expected, rel=1e-5)


def test_the_speed_of_imagination_is_measured() -> None:
    assert imagination_speed(tiny_world(), streams=2, steps=2, trials=1) > 0
