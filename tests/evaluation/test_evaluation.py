"""Figures of a trained model: right where the truth is known."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from fake_gpu import GPU, FakeGpu
from stores import make_meta
from tiny_models import noise_frames, tiny_prior, tiny_store, tiny_vqvae, tiny_world
from torch import Tensor

from vqvideo.data.clips import Clips, stack_frames
from vqvideo.data.episode import Episode
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError
from vqvideo.evaluation import frame_sets
from vqvideo.evaluation import prior as of_prior
from vqvideo.evaluation.frame_sets import FrechetConfig, lite0_missing
from vqvideo.evaluation.horizon import HorizonReport
from vqvideo.evaluation.metrics import psnr, ssim
from vqvideo.evaluation.prior import step_likelihood, step_rewards
from vqvideo.evaluation.world import evaluate_world, through_tokenizer
from vqvideo.models.pixels import to_uint8, to_unit
from vqvideo.models.prior import Likelihood, MaskedHeadConfig
from vqvideo.models.prior.sampling import Sampling
from vqvideo.storage.records import without_nan
from vqvideo.world import WorldModel

HOW = Sampling()


# ---------------------------------------------------------------- a world that is imagined perfectly


class Lossless:
    """A tokenizer of time stride 1 that keeps every pixel."""

    stride = 1

    def clip_length(self, latent_steps: int) -> int:
        return latent_steps

    def latent_length(self, frames: int) -> int:
        return frames

    def init_state(self, batch: int) -> None:
        return None

    def encode_step(self, frames: Tensor, state: None) -> tuple[Tensor, None]:
        return frames, None

    def decode_step(self, codes: Tensor, state: None) -> tuple[Tensor, None]:
        return to_unit(codes), None


class Spec(NamedTuple):
    tokens, codebook_size, knows_rewards = 4, 256, True


class Teller:
    """A prior that says a step costs as many nats as its action, and that its reward is half the action."""

    spec, can_guide = Spec(), False

    def likelihood(self, codes: Tensor, actions: Tensor, generator: torch.Generator, *, blind: bool) -> Likelihood:
        assert not blind
        return Likelihood(actions[:, :, 0, 0], "bound")

    def __call__(self, codes: Tensor, actions: Tensor, *_: Any, **others: Any) -> SimpleNamespace:
        return SimpleNamespace(reward=actions[:, :, 0, 0] / 2)


class Brightness:
    """Knows that each action is added to the brightness of a gray frame, and is its reward."""

    vqvae, prior, stride, device = Lossless(), Teller(), 1, torch.device("cpu")
    action_space = make_meta().action_space

    def imagine(self, frames: Tensor, actions: Tensor, *, sampling: Sampling, seed: int) -> SimpleNamespace:
        steps = self.changes(actions[:, frames.shape[1] - 1 :, 0])
        bright = frames[:, -1:].float() + steps.cumsum(dim=1)[:, :, None, None, None]
        return SimpleNamespace(frames=bright.to(torch.uint8), rewards=steps, entropy=steps / 10)

    def changes(self, actions: Tensor) -> Tensor:
        return actions


class Still(Brightness):
    """Thinks that nothing ever moves."""

    def changes(self, actions: Tensor) -> Tensor:
        return torch.zeros_like(actions)


def gray_store(path: Path, held_out: dict[float, int], steps: int, train: bool = False) -> Store:
    """Held-out episodes of gray frames: under their action, which is also the reward, they get brighter by so much. On
    demand one more to train on, with rewards of 1.
    """
    kinds = [(*pair, pair[0], "held_out") for pair in held_out.items()]
    kinds += [(*next(iter(held_out.items())), 1.0, "train")] * train
    with StoreWriter.open(path, make_meta(frame_size=(12, 12))) as writer:
        for index, (action, brighter, reward, split) in enumerate(kinds):
            gray = (20 + brighter * np.arange(steps + 1)).astype(np.uint8)
            frames = np.broadcast_to(gray[:, None, None, None], (steps + 1, 12, 12, 3)).copy()
            actions, rewards = np.full((steps, 1), action), np.full(steps, reward, np.float32)
            flags = np.zeros(steps, bool)
            writer.add(index, Episode(frames, actions, rewards, flags, flags, index), split)
    return Store.open(path)


def brightness_report(path: Path, world: Brightness, train: bool = False) -> HorizonReport:
    clips = Clips(gray_store(path, {2.0: 2, 4.0: 4}, 20, train), "held_out", 3 + 5)
    return evaluate_world(world, clips, 2, context=3, sampling=HOW, seed=0)  # type: ignore[arg-type]


K = np.arange(1, 6)
"""The imagined steps."""


def decibel(gap: np.ndarray) -> np.ndarray:
    return 20 * np.log10(255 / gap)


def test_a_perfect_world_reaches_the_ceiling_and_other_actions_do_not(tmp_path: Path) -> None:
    report = brightness_report(tmp_path, Brightness())
    assert report.psnr["imagined"] == pytest.approx([100.0] * 5)
    assert report.psnr["reconstruction"] == pytest.approx([100.0] * 5)
    assert report.ssim["imagined"] == pytest.approx([1.0] * 5)
    assert report.repeat_rate == 0
    assert report.psnr["repeat"] == pytest.approx((decibel(2 * K) + decibel(4 * K)) / 2, abs=1e-3)
    assert report.psnr["other_actions"] == pytest.approx(decibel(2 * K), abs=1e-3)
    assert report.psnr_gain_db == pytest.approx(100 - (decibel(2 * K) + decibel(4 * K)) / 2, abs=1e-3)
    assert report.controllability_db == pytest.approx((100 - decibel(2 * K)).mean(), abs=1e-3)
    assert report.controllability_se_db == pytest.approx(0, abs=1e-3)


def test_a_world_that_stands_still_repeats_and_gains_nothing(tmp_path: Path) -> None:
    report = brightness_report(tmp_path, Still())
    assert report.repeat_rate == 1
    assert report.repeat_rates["repeat"].tolist() == [1.0] * 5
    assert report.repeat_rates["real"].tolist() == [0.0] * 5
    assert report.psnr_gain_db == pytest.approx([0.0] * 5)
    assert report.ssim_gain == pytest.approx([0.0] * 5)
    assert report.controllability_db == pytest.approx(0)


def test_changed_pixels_are_those_of_the_real_video_and_their_errors_add_up_over_clips(tmp_path: Path) -> None:
    """An action of 4 is a change of less than the threshold, one of 40 is more: only the second clip counts."""
    clips = Clips(gray_store(tmp_path, {1.0: 4, 2.0: 40}, 5), "held_out", 6)
    report = evaluate_world(Still(), clips, 2, context=1, sampling=HOW, seed=0)  # type: ignore[arg-type]
    assert report.changed_psnr["imagined"] == pytest.approx(decibel(40 * K), abs=1e-3)
    assert report.changed_psnr["reconstruction"] == pytest.approx([100.0] * 5)


def test_a_step_in_which_nothing_changed_has_no_changed_pixels(tmp_path: Path) -> None:
    report = brightness_report(tmp_path, Brightness())
    assert all(math.isnan(value) for value in report.changed_psnr["imagined"])
    assert " - " in report.tables()


def test_rewards_are_judged_step_by_step_beside_their_baselines(tmp_path: Path) -> None:
    found = brightness_report(tmp_path, Brightness(), train=True).reward_rmse
    assert found["imagined"].tolist() == [0.0] * 5
    assert found["other_actions"].tolist() == [2.0] * 5
    assert found["teacher_forced"] == pytest.approx([math.sqrt((1 + 4) / 2)] * 5)
    assert found["training_mean"] == pytest.approx([math.sqrt((1 + 9) / 2)] * 5)


def test_nats_are_per_token_of_the_steps_after_the_context_and_entropies_those_of_the_dreams(tmp_path: Path) -> None:
    report = brightness_report(tmp_path, Brightness())
    assert report.likelihood_kind == "bound"
    assert report.token_nats["imagined"] == pytest.approx([(2 + 4) / 2 / 4] * 5)
    assert report.token_nats["other_actions"] == pytest.approx([(2 + 4) / 2 / 4] * 5)
    assert report.token_entropy["imagined"] == pytest.approx([0.3] * 5)
    assert "nats per token of the real codes, teacher-forced, bound" in report.tables()


def test_baselines_that_there_are_not_are_left_out(tmp_path: Path) -> None:
    """Here is no training episode, and the prior cannot do without actions."""
    report = brightness_report(tmp_path, Brightness())
    assert "training_mean" not in report.reward_rmse
    assert "reward_rmse_training_mean" not in report.to_json()
    assert "no_actions" not in report.psnr.keys() | report.token_nats.keys()
    assert report.to_json()["psnr_no_actions_db"] is None
    assert not any(head in report.table() + report.tables() for head in ("no actions", "training mean"))


def test_a_world_is_measured_on_a_gpu_without_float64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = brightness_report(tmp_path / "cpu", Brightness()).to_json()
    monkeypatch.setattr(Brightness, "device", GPU)
    with FakeGpu(monkeypatch):
        assert without_nan(brightness_report(tmp_path / "gpu", Brightness()).to_json()) == without_nan(expected)


# ---------------------------------------------------------------- a tiny world


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return tiny_store(tmp_path_factory.mktemp("store"))


def tiny_clips(world: WorldModel, store: Store, context: int = 2, steps: int = 3) -> Clips:
    return Clips(store, "held_out", world.vqvae.clip_length(context + steps))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_report_has_a_figure_for_each_latent_step_and_says_what_it_is(store: Store, stride: int) -> None:
    world = tiny_world(stride)
    clips = tiny_clips(world, store)
    report, again = (evaluate_world(world, clips, 5, context=2, sampling=HOW, seed=0, batch=2) for _ in range(2))
    assert without_nan(report.to_json()) == without_nan(again.to_json())
    assert {len(value) for value in report.to_json().values() if isinstance(value, list)} == {3}
    assert (report.clips, report.context, report.seed) == (5, 2, 0)
    lines = report.table().splitlines()
    assert "held-out clips 5, context 2 latent steps, seed 0" in lines[0]
    assert [line.split()[1] for line in lines[3:6]] == ["1", "2", "3"]
    assert f"{report.controllability_db:+.2f} dB" in lines[-1]


def test_every_baseline_is_what_its_name_says(store: Store) -> None:
    world, context = tiny_world(), 2
    clips = tiny_clips(world, store)
    report = evaluate_world(world, clips, 3, context, HOW, seed=4)
    picks = clips.spread(3).tolist()
    frames, seen = stack_frames(clips, picks), world.vqvae.clip_length(context)
    actions = torch.stack([clips[i]["actions"] for i in picks])
    lent = torch.cat([actions[:, : seen - 1], actions.roll(1, dims=0)[:, seen - 1 :]], dim=1)
    real, blind = frames[:, seen:], Sampling(guidance=0)

    def per_step(values: Tensor) -> list[float]:
        return pytest.approx(values.double().mean(dim=0).unflatten(0, (3, 2)).mean(dim=1).tolist(), abs=1e-4)

    videos = {
        "imagined": world.imagine(frames[:, :seen], actions, seed=4).frames,
        "other_actions": world.imagine(frames[:, :seen], lent, seed=4).frames,
        "no_actions": world.imagine(frames[:, :seen], actions, sampling=blind, seed=4).frames,
        "reconstruction": to_uint8(world.vqvae.decode(world.vqvae.encode(frames)))[:, seen:],
        "repeat": frames[:, seen - 1 : seen].expand_as(real),
    }
    for name, video in videos.items():
        assert report.psnr[name] == per_step(psnr(to_unit(video), to_unit(real))), name
        assert report.ssim[name] == per_step(ssim(to_unit(video), to_unit(real))), name
    assert report.psnr["imagined"].tolist() != report.psnr["no_actions"].tolist()


def test_what_is_not_dreamt_does_not_depend_on_the_batch(store: Store) -> None:
    world = tiny_world()
    clips = tiny_clips(world, store)
    small, large = (evaluate_world(world, clips, 6, 2, HOW, seed=0, batch=batch).to_json() for batch in (2, 6))
    names = ("psnr_repeat_db", "changed_psnr_repeat_db", "ssim_reconstruction", "repeat_rates_real")
    of_prior = ("reward_rmse_teacher_forced", "token_nats", "token_nats_no_actions")
    for name in (*names, *of_prior):
        assert without_nan(small[name]) == pytest.approx(without_nan(large[name]), abs=1e-4), name


def test_a_horizon_far_beyond_the_window_is_measured(tmp_path: Path) -> None:
    world = tiny_world(stride=1)
    clips = Clips(tiny_store(tmp_path, episodes=6, steps=33), "held_out", 2 + 32)
    report = evaluate_world(world, clips, 2, context=2, sampling=HOW, seed=0, frechet=None)
    assert len(report.psnr["imagined"]) == 32 > 10 * world.prior.cfg.window
    assert np.isfinite([report.token_nats["imagined"], report.reward_rmse["imagined"]]).all()
    shown = [line.split()[1] for line in report.table().splitlines()[3:-1]]
    assert shown == ["1", "2", "4", "8", "16", "32"]


def test_one_clip_alone_cannot_lend_its_actions(store: Store) -> None:
    world = tiny_world()
    with pytest.raises(InputError, match=r"1 held-out clip\(s\), expected at least 2 to compare actions: record more"):
        evaluate_world(world, tiny_clips(world, store), 1, context=2, sampling=HOW, seed=0)


@pytest.mark.parametrize("stride", [1, 2])
def test_clips_pass_the_tokenizer_in_parts_as_they_would_whole(stride: int) -> None:
    vqvae = tiny_vqvae(stride)
    frames = noise_frames(2, vqvae.clip_length(20))
    codes, rebuilt = through_tokenizer(vqvae, frames)
    assert torch.equal(codes, vqvae.encode(frames))
    assert (rebuilt.float() - 255 * vqvae.decode(codes)).abs().max() < 0.51


# ---------------------------------------------------------------- reading real codes


def random_clips(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Codes (3, 5, 2, 2) and actions."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(16, (3, 5, 2, 2), generator=generator)
    return codes, torch.randint(5, (3, 4, 2, 1), generator=generator).float()


@pytest.mark.parametrize("blind", [False, True])
def test_the_likelihood_of_long_clips_is_read_in_parts(monkeypatch: pytest.MonkeyPatch, blind: bool) -> None:
    prior, (codes, actions) = tiny_prior(), random_clips()
    whole = step_likelihood(prior, codes, actions, seed=0, blind=blind)
    monkeypatch.setattr(of_prior, "_MOST_LOGITS", 1)
    parts = step_likelihood(prior, codes, actions, seed=0, blind=blind)
    assert (whole.kind, parts.kind) == ("exact", "exact")
    torch.testing.assert_close(parts.nats, whole.nats)


def test_the_blind_likelihood_does_not_see_the_actions_and_the_other_does() -> None:
    prior, (codes, actions) = tiny_prior(), random_clips()
    other = (actions + 1) % 5
    see, see_other = (step_likelihood(prior, codes, a, seed=0).nats for a in (actions, other))
    blind, blind_other = (step_likelihood(prior, codes, a, seed=0, blind=True).nats for a in (actions, other))
    assert not torch.allclose(see, see_other)
    assert torch.equal(blind, blind_other)
    assert not torch.allclose(see, blind)


def test_rewards_are_read_without_touching_the_global_randomness() -> None:
    prior = tiny_prior(head=MaskedHeadConfig(layers=1, heads=2))
    codes, actions = random_clips()
    before = torch.get_rng_state()
    found = step_rewards(prior, codes, actions, torch.zeros(3, 4))
    assert found.shape == (3, 4)
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------- distances of sets of frames


def test_a_report_with_distances_states_how_many_frames_each_used(store: Store) -> None:
    if lite0_missing():
        pytest.skip("the optional packages are not installed")
    world = tiny_world()
    cfg = FrechetConfig(block=2, frames=8, side=32)
    report = evaluate_world(world, tiny_clips(world, store), 4, 2, HOW, seed=0, frechet=cfg)
    found = report.fd_effnetlite0
    assert found is not None
    assert (found.last_steps, found.frames, found.side) == ([2, 3], [8, 8], 32)
    assert report.to_json()["fd_effnetlite0"]["imagined"] == found.imagined  # type: ignore[index]
    assert [line.split()[1] for line in report.tables().split("fd_effnetlite0")[1].splitlines()[3:5]] == ["1-2", "3-3"]


def test_without_the_optional_packages_the_table_says_how_to_get_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_sets, "find_spec", lambda name: None)
    world = tiny_world()
    report = evaluate_world(world, tiny_clips(world, store), 2, 2, HOW, seed=0, frechet=FrechetConfig())
    assert report.fd_effnetlite0 is None
    assert report.to_json()["fd_effnetlite0"] is None
    assert 'fd_effnetlite0 was not measured: pip install "vqvideo[perceptual]"' in report.tables()
