"""Figures of a trained model: right where the truth is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from stores import make_meta
from tiny_models import make_spec, tiny_prior, tiny_store, tiny_vqvae, tiny_world
from torch import Tensor

from vqvideo.data.clips import Clips
from vqvideo.data.codes import CodeArrays, CodeClips
from vqvideo.data.episode import Episode
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError
from vqvideo.evaluation import (
    evaluate_prior,
    evaluate_tokenizer,
    evaluate_world,
    imagination_speed,
    stack_frames,
)
from vqvideo.metrics import psnr
from vqvideo.sampling import Sampling
from vqvideo.video import to_unit

HOW = Sampling()


# ---------------------------------------------------------------- a world that is imagined perfectly


class Lossless:
    """A tokenizer of time stride 1 that keeps every pixel."""

    def clip_length(self, latent_steps: int) -> int:
        return latent_steps

    def encode(self, frames: Tensor) -> Tensor:
        return frames

    def decode(self, codes: Tensor) -> Tensor:
        return to_unit(codes)


class Dream(NamedTuple):
    frames: Tensor


class Brightness:
    """Knows that each action is added to the brightness of a gray frame."""

    vqvae, stride, device = Lossless(), 1, torch.device("cpu")

    def imagine(self, frames: Tensor, actions: Tensor, *, sampling: Sampling, seed: int) -> Dream:
        steps = actions[:, frames.shape[1] - 1 :, 0].cumsum(dim=1)
        return Dream((frames[:, -1:].float() + steps[:, :, None, None, None]).to(torch.uint8))


def brightness_store(path: Path) -> Store:
    """Two held-out episodes of gray frames that get brighter by the action, which is 1 to 4, never the same."""
    with StoreWriter.open(path, make_meta(frame_size=(12, 12))) as writer:
        for index, action in enumerate((2.0, 4.0)):
            actions = np.full((20, 1), action)
            gray = 20 + np.concatenate([[0], actions.cumsum()]).astype(np.uint8)
            frames = np.broadcast_to(gray[:, None, None, None], (21, 12, 12, 3)).copy()
            flags = np.zeros(20, bool)
            writer.add(index, Episode(frames, actions, np.zeros(20, np.float32), flags, flags, index), "held_out")
    return Store.open(path)


def test_a_perfect_world_reaches_the_ceiling_and_other_actions_do_not(tmp_path: Path) -> None:
    clips = Clips(brightness_store(tmp_path), "held_out", 3 + 5)
    report = evaluate_world(Brightness(), clips, 2, context=3, sampling=HOW, seed=0)  # type: ignore[arg-type]
    assert report.psnr_db == pytest.approx([100.0] * 5)
    assert report.psnr_reconstruction_db == pytest.approx([100.0] * 5)
    assert report.ssim == pytest.approx([1.0] * 5)
    assert report.repeat_rate == 0
    k = np.arange(1, 6)
    decibel = lambda gap: 20 * np.log10(255 / gap)  # noqa: E731
    assert report.psnr_repeat_db == pytest.approx((decibel(2 * k) + decibel(4 * k)) / 2, abs=1e-3)
    assert report.psnr_other_actions_db == pytest.approx(decibel(2 * k), abs=1e-3)
    assert report.psnr_gain_db == pytest.approx(100 - (decibel(2 * k) + decibel(4 * k)) / 2, abs=1e-3)
    assert report.controllability_db == pytest.approx((100 - decibel(2 * k)).mean(), abs=1e-3)


def test_a_world_that_stands_still_repeats_and_gains_nothing(tmp_path: Path) -> None:
    class Still(Brightness):
        def imagine(self, frames: Tensor, actions: Tensor, *, sampling: Sampling, seed: int) -> Dream:
            return Dream(frames[:, -1:].expand(-1, actions.shape[1] - frames.shape[1] + 1, -1, -1, -1))

    clips = Clips(brightness_store(tmp_path), "held_out", 3 + 5)
    report = evaluate_world(Still(), clips, 2, context=3, sampling=HOW, seed=0)  # type: ignore[arg-type]
    assert report.repeat_rate == 1
    assert report.psnr_gain_db == pytest.approx([0.0] * 5)
    assert report.ssim_gain == pytest.approx([0.0] * 5)
    assert report.controllability_db == pytest.approx(0)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_report_has_a_figure_for_each_latent_step_and_says_what_it_is(tmp_path: Path, stride: int) -> None:
    world = tiny_world(stride)
    clips = Clips(tiny_store(tmp_path), "held_out", world.vqvae.clip_length(2 + 3))
    report = evaluate_world(world, clips, 5, context=2, sampling=HOW, seed=0, batch=2)
    again = evaluate_world(world, clips, 5, context=2, sampling=HOW, seed=0, batch=2)
    assert report == again
    assert {len(value) for value in report.to_json().values() if isinstance(value, list)} == {3}
    assert (report.clips, report.context, report.seed) == (5, 2, 0)
    lines = report.table().splitlines()
    assert "held-out clips 5, context 2 latent steps, seed 0" in lines[0]
    assert [line.split()[0] for line in lines[2:5]] == ["1", "2", "3"]
    assert f"{report.controllability_db:+.2f} dB" in lines[-1]


def test_one_clip_alone_cannot_lend_its_actions(tmp_path: Path) -> None:
    world = tiny_world()
    clips = Clips(tiny_store(tmp_path, steps=24), "held_out", 9)
    with pytest.raises(InputError, match=r"1 held-out clip\(s\), expected at least 2 to compare actions: record more"):
        evaluate_world(world, clips, 1, context=2, sampling=HOW, seed=0)


# ---------------------------------------------------------------- tokenizer and prior


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


def code_clips(rewards: float = 1.0, ends: bool = False) -> CodeClips:
    """Twelve steps of random codes under action 0."""
    terminated = np.zeros(12, bool)
    terminated[-1] = ends
    alternating = (np.arange(12) % 2 * rewards).astype(np.float32)
    codes = np.random.default_rng(0).integers(16, size=(12, 2, 2), dtype=np.int32)
    return CodeClips(CodeArrays(codes, np.zeros((12, 2, 1), np.float32), alternating, terminated, np.array([0, 12])), 4)


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
    assert small["termination_rate"] == pytest.approx(1 / 27)


def test_without_any_end_the_precision_of_ends_is_not_a_number() -> None:
    figures = evaluate_prior(tiny_prior(), code_clips(), 9)
    assert math.isnan(figures["termination_ap"])
    assert figures["termination_rate"] == 0


def test_rewards_are_judged_beside_their_own_spread() -> None:
    figures = evaluate_prior(tiny_prior(make_spec()), code_clips(rewards=2.0), 9)
    (mean,) = [value for name, value in figures.items() if name.startswith("reward_") and name.endswith("_of_mean")]
    assert mean == pytest.approx(1.0, abs=0.01)


def test_the_speed_of_imagination_is_measured() -> None:
    assert imagination_speed(tiny_world(), streams=2, steps=2, trials=1) > 0
