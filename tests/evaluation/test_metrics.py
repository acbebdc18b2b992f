"""Metrics against values worked out by hand or by plain numpy."""

from __future__ import annotations

from math import isnan, log10

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqvideo.evaluation import metrics

# ---------------------------------------------------------------- PSNR


@pytest.mark.parametrize(("error", "expected"), [(0.1, 20.0), (0.01, 40.0), (1.0, 0.0), (0.0, 100.0), (1e-9, 100.0)])
def test_psnr_of_a_known_error(error: float, expected: float) -> None:
    target = torch.zeros(3, 8, 8)
    assert metrics.psnr(target + error, target).item() == pytest.approx(expected, abs=1e-3)


def test_psnr_is_one_number_per_frame_of_the_mean_over_its_pixels() -> None:
    target = torch.zeros(2, 3, 3, 8, 8)
    predicted = target.clone()
    predicted[1, 2] = 0.1
    predicted[0, 0, :, 0, 0] = 1.0
    expected = torch.full((2, 3), 100.0)
    expected[1, 2], expected[0, 0] = 20, 10 * log10(64)
    torch.testing.assert_close(metrics.psnr(predicted, target), expected, atol=1e-3, rtol=0)


def changed_psnr(predicted: torch.Tensor, target: torch.Tensor) -> float:
    return metrics.changed_pixel_psnr(*(v.sum() for v in metrics.changed_pixel_errors(predicted, target))).item()


def test_only_changed_pixels_count_for_the_changed_pixel_psnr() -> None:
    target = torch.zeros(1, 3, 3, 4, 4)
    target[:, 1, 0, 0, 0] = 1.0  # one channel of one pixel comes at frame 1 and goes at frame 2
    target[:, 2, :, 1, 1] = 0.04  # less than the threshold
    predicted = target + 0.5
    predicted[:, 1, :, 0, 0] = target[:, 1, :, 0, 0] + 0.1
    predicted[:, 2, :, 0, 0] = target[:, 2, :, 0, 0] - 0.3
    found = changed_psnr(predicted, target)
    assert found == pytest.approx(-10 * log10((0.01 + 0.09) / 2), abs=1e-4)


def test_the_changed_pixel_psnr_of_a_still_clip_is_not_a_number() -> None:
    assert isnan(changed_psnr(torch.rand(1, 3, 3, 4, 4), torch.zeros(1, 3, 3, 4, 4)))


# ---------------------------------------------------------------- SSIM


def plain_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004 for one channel, window by window."""
    at = np.arange(11) - 5
    line = np.exp(-(at**2) / (2 * 1.5**2))
    window = np.outer(line, line) / np.outer(line, line).sum()
    scores = []
    for row in range(x.shape[0] - 10):
        for column in range(x.shape[1] - 10):
            a, b = (v[row : row + 11, column : column + 11] for v in (x, y))
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            cov = (window * (a - ma) * (b - mb)).sum()
            top = (2 * ma * mb + 0.01**2) * (2 * cov + 0.03**2)
            scores.append(top / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2)))
    return float(np.mean(scores))


def test_ssim_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    target = rng.random((2, 3, 14, 17))
    predicted = (target + 0.2 * rng.normal(size=target.shape)).clip(0, 1)
    expected = [np.mean([plain_ssim(predicted[i, c], target[i, c]) for c in range(3)]) for i in range(2)]
    found = metrics.ssim(torch.tensor(predicted), torch.tensor(target))
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("size", [(5, 20), (11, 11), (16, 40)])
def test_ssim_of_any_size_is_one_for_equal_frames_and_less_for_noise(size: tuple[int, int]) -> None:
    frames = torch.rand(2, 3, *size)
    torch.testing.assert_close(metrics.ssim(frames, frames), torch.ones(2))
    assert (metrics.ssim(1 - frames, frames) < 0).all()
    assert (metrics.ssim(torch.full_like(frames, frames.mean()), frames) < 0.1).all(), "the mean is all blur"
    assert (metrics.ssim((frames + 0.3 * torch.randn_like(frames)).clamp(0, 1), frames) < 0.95).all()


def test_a_step_repeats_the_one_before_if_it_hardly_moves() -> None:
    frames = torch.zeros(2, 4, 3, 4, 4)
    frames[0] = 0.1 * torch.arange(4)[:, None, None, None]
    frames[1, 2:] = 0.5
    assert metrics.repeats(frames).tolist() == [[False, False, False], [True, False, True]]
    assert metrics.repeats(frames, threshold=0.2).tolist() == [[True, True, True], [True, False, True]]


# ---------------------------------------------------------------- average precision


def plain_average_precision(scores: list[float], labels: list[bool]) -> float:
    """Sum over thresholds of precision times the recall gained."""
    total, before = 0.0, 0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [label for score, label in zip(scores, labels, strict=True) if score >= threshold]
        total += sum(chosen) / len(chosen) * (sum(chosen) - before)
        before = sum(chosen)
    return total / sum(labels)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_average_precision_is_its_definition_also_with_ties(pairs: list[tuple[int, bool]]) -> None:
    scores, labels = [float(s) for s, _ in pairs], [label for _, label in pairs]
    found = metrics.average_precision(torch.tensor(scores), torch.tensor(labels))
    if any(labels):
        assert found == pytest.approx(plain_average_precision(scores, labels))
    else:
        assert np.isnan(found)


# ---------------------------------------------------------------- calibration


@pytest.mark.parametrize(
    ("probabilities", "labels", "expected"),
    [
        ([0.0, 0.0, 1.0], [0, 0, 1], 0.0),
        ([0.0, 1.0], [1, 0], 1.0),
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0], 0.0),
        ([0.25, 0.25, 0.75, 0.75], [0, 0, 1, 0], (2 * 0.25 + 2 * 0.25) / 4),
        ([0.1, 0.1, 0.1, 0.9], [0, 0, 1, 1], (3 * (1 / 3 - 0.1) + 0.1) / 4),
    ],
)
def test_the_calibration_error_by_hand(probabilities: list[float], labels: list[int], expected: float) -> None:
    found = metrics.expected_calibration_error(torch.tensor(probabilities), torch.tensor(labels, dtype=torch.bool))
    assert found == pytest.approx(expected, abs=1e-6)


def test_labels_drawn_from_their_probabilities_are_calibrated_and_overconfident_ones_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(100_000, generator=generator)
    labels = torch.rand(100_000, generator=generator) < p
    assert metrics.expected_calibration_error(p, labels) < 0.01
    assert metrics.expected_calibration_error((p > 0.5).float(), labels) == pytest.approx(0.25, abs=0.01)
    assert isnan(metrics.expected_calibration_error(p[:0], labels[:0]))


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=3, max_size=20, unique=True), st.floats(-3, 3), st.floats(-3, 3))
def test_the_slope_of_a_line_is_its_own(predicted: list[float], slope: float, offset: float) -> None:
    x = torch.tensor(predicted, dtype=torch.float64)
    if x.std() > 1e-3:
        assert metrics.calibration_slope(x, slope * x + offset) == pytest.approx(slope, abs=1e-6)
    assert isnan(metrics.calibration_slope(torch.ones(3), x[:3]))


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans(), st.integers(1, 4)), min_size=2, max_size=12))
def test_a_whole_weight_counts_like_as_many_equal_samples(rows: list[tuple[int, bool, int]]) -> None:
    scores, labels, weights = (torch.tensor(column) for column in zip(*rows, strict=True))
    scores = scores.double() / 20
    many_scores, many_labels = scores.repeat_interleave(weights), labels.repeat_interleave(weights)
    for metric in (metrics.average_precision, metrics.expected_calibration_error):
        assert metric(scores, labels, weights) == pytest.approx(metric(many_scores, many_labels), abs=1e-9, nan_ok=True)
    slope = metrics.calibration_slope(scores, labels.double(), weights)
    assert slope == pytest.approx(metrics.calibration_slope(many_scores, many_labels.double()), rel=1e-4, nan_ok=True)
