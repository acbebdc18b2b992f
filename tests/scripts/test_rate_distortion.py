"""Rate-distortion: rates are counted to the bit, curves are the best of what was tried, the script draws them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import script
from tiny_models import noise_frames, tiny_store, tiny_vqvae, tiny_world

from vqvideo.errors import InputError
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.scripts.benchmarks.curves import Point, Quality, RateDistortion, interpolated, rate_at, upper_hull
from vqvideo.scripts.benchmarks.rate_distortion import reconstruct, sequences, short_names, tokenizer_points


def point(rate: float, psnr: float) -> Point:
    return Point(f"{rate}", "x264", rate, psnr, psnr, 1.0, 1.0)


def numpy_clip(frames: int, seed: int = 0) -> np.ndarray:
    return noise_frames(1, frames, seed)[0].permute(0, 2, 3, 1).contiguous().numpy()


@pytest.fixture(scope="module")
def vqvae() -> VQVAE:
    return tiny_vqvae()


def test_the_curve_runs_over_the_best_points() -> None:
    best = [point(0.01, 20), point(0.1, 30), point(1.0, 35)]
    beaten = [point(0.05, 22), point(0.2, 29), point(0.3, 31.9)]
    assert upper_hull([*beaten, *reversed(best)]) == best


def test_curves_are_read_between_their_points_and_nowhere_else() -> None:
    hull = [point(0.01, 20), point(0.1, 30), point(1.0, 35)]
    assert interpolated(hull, math.sqrt(0.001)) == pytest.approx(25)
    assert rate_at(hull, 25) == pytest.approx(math.sqrt(0.001))
    assert interpolated(hull, 1.0) == pytest.approx(35)
    assert math.isnan(interpolated(hull, 2.0))
    assert math.isnan(rate_at(hull, 19))


def test_a_tokenizer_is_compared_at_its_own_rate() -> None:
    ours = replace(point(0.1, 28), psnr_of_mean_mse_db=25)
    found = RateDistortion([ours], {"x264": [point(0.01, 20), point(0.1, 30)]}, 10, 1, (16, 16)).compared(ours)
    assert found["x264"]["difference_db"] == pytest.approx(-2)
    assert found["x264"]["difference_of_mean_mse_db"] == pytest.approx(-5)
    assert found["x264"]["bits_per_pixel_at_same_psnr"] == pytest.approx(10**-1.2)


def test_both_means_of_psnr_are_what_they_say() -> None:
    target = torch.zeros(2, 3, 16, 16)
    decoded = torch.stack([torch.full((3, 16, 16), 0.1), torch.full((3, 16, 16), 0.01)])
    quality = Quality()
    quality.add(decoded, target, bits=1024)
    found = quality.point("", "", fps=10)
    assert found.psnr_db == pytest.approx((20 + 40) / 2, abs=1e-3)
    assert found.psnr_of_mean_mse_db == pytest.approx(-10 * math.log10((0.01 + 0.0001) / 2), abs=1e-3)
    assert found.bits_per_pixel == 1024 / (2 * 16 * 16)
    assert found.kbit_per_s == pytest.approx(1024 / 0.2 / 1000)


@pytest.mark.parametrize("latent_steps", [1, 3, 100])
def test_parts_give_what_the_whole_clip_gives(vqvae: VQVAE, latent_steps: int) -> None:
    clip = numpy_clip(1 + 2 * 7)
    codes, decoded = reconstruct(vqvae, clip, latent_steps=latent_steps)
    whole = vqvae.encode(torch.from_numpy(clip).permute(0, 3, 1, 2)[None])
    assert torch.equal(codes, whole[0])
    torch.testing.assert_close(decoded, vqvae.decode(whole)[0], atol=1e-4, rtol=1e-4)


def test_codes_of_fixed_length_count_the_first_frame_too(vqvae: VQVAE) -> None:
    (found,) = tokenizer_points(vqvae, "tiny", [numpy_clip(9), numpy_clip(5)], [], fps=10)
    bits = (1 + 4 + 1 + 2) * vqvae.tokens * 4
    assert found.bits_per_pixel == pytest.approx(bits / (14 * 16 * 16))
    assert found.kbit_per_s == pytest.approx(bits / 1.4 / 1000)


def test_the_static_table_is_the_cross_entropy_under_training_frequencies(vqvae: VQVAE) -> None:
    clip, training = numpy_clip(9), numpy_clip(40, seed=1)
    fixed, table = tokenizer_points(vqvae, "tiny", [clip], [training], fps=10)
    counts = np.bincount(reconstruct(vqvae, training[:39])[0].flatten().numpy(), minlength=16) + 1
    bits = sum(-math.log2(counts[code] / counts.sum()) for code in reconstruct(vqvae, clip)[0].flatten().tolist())
    assert table.bits_per_pixel == pytest.approx(bits / (9 * 256))
    assert table.psnr_db == fixed.psnr_db


def test_sequences_are_held_out_episodes_cut_to_whole_latent_steps(tmp_path: Path) -> None:
    store = tiny_store(tmp_path / "data", episodes=6, steps=24)
    found = sequences(store, 5, 2)
    assert [len(episode.frames) for episode in found] == [25, 25]
    assert np.array_equal(found[0].frames, store.episode(store.split("held_out")[0]).frames)
    (cut,) = sequences(store, 1, 5)
    assert (len(cut.frames), cut.length, len(cut.rewards)) == (21, 20, 20)
    empty = tiny_store(tmp_path / "none", episodes=2)
    with pytest.raises(InputError, match="no held-out episode of 3 frames or more"):
        sequences(empty, 1, 2)


def test_models_are_named_after_their_runs() -> None:
    assert short_names([Path("runs/one/vqvae/model"), Path("runs/two/vqvae/model")]) == ["one", "two"]
    assert short_names([Path("a/one/vqvae/model"), Path("b/one/vqvae/model")]) == ["a/one", "b/one"]


def test_the_script_writes_table_figures_and_plot(tmp_path: Path, vqvae: VQVAE) -> None:
    pytest.importorskip("matplotlib")
    tiny_store(tmp_path / "data", steps=8)
    vqvae.save_pretrained(tmp_path / "model")
    tiny_world().save_pretrained(tmp_path / "world")
    options = (
        "--models",
        "model",
        "--worlds",
        "world",
        "--record.out",
        "data",
        "--episodes",
        1,
        "--out",
        "found",
        "--threads",
        1,
    )
    run = script("rate_distortion", *options, cwd=tmp_path)
    assert run.code == 0, run.err
    assert "SVT-AV1 does not take frames of 16x16" in run.err
    assert "model, fixed length" in run.out
    record = json.loads((tmp_path / "found" / "rate_distortion.json").read_text())
    assert record["frames"] == 9
    fixed, _, coded = record["tokenizers"]
    assert set(fixed["codecs"]) == {"x264"}
    (file,) = record["files"]
    assert coded["name"] == file["name"] == "world, entropy-coded"
    # Of the same tokenizer: what differs is the size alone, by the prior and the words of 32 bits.
    assert coded["psnr_db"] == pytest.approx(fixed["psnr_db"], abs=1e-3)
    assert coded["bits_per_pixel"] / fixed["bits_per_pixel"] == pytest.approx(file["share"])
    assert len(record["codecs"]["x264"]) > 20
    assert set(record["curves"]["x264"]) <= {found["name"] for found in record["codecs"]["x264"]}
    assert np.asarray(Image.open(tmp_path / "found" / "rate_distortion.png")).std() > 1
