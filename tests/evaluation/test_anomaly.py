"""Anomalies: thresholds keep their rate, scores rise where something is wrong, and pictures show it there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import film_world, noise_frames, tiny_world

from vqvideo.errors import InputError
from vqvideo.evaluation.anomaly import Calibration, Seen, watched
from vqvideo.evaluation.anomaly_pictures import overlaid, score_plot
from vqvideo.evaluation.conformal import threshold
from vqvideo.models.surprise import Surprise


@given(st.integers(20, 300), st.sampled_from([0.05, 0.1, 0.5]), st.integers(0, 99))
def test_another_score_passes_as_rarely_as_promised(count: int, rate: float, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=count)
    limit = threshold(scores, rate)
    above = int((scores > limit).sum())
    # Of n + 1 that can be exchanged for each other, any is among so many that are larger.
    assert above / (count + 1) <= rate < (above + 2) / (count + 1)


def test_too_few_normal_steps_are_refused() -> None:
    with pytest.raises(InputError, match=r"10 normal steps are too few for 0\.01 false alarms .* at least 99"):
        threshold(np.zeros(10), 0.01)
    with pytest.raises(InputError, match="expected between 0 and 1"):
        threshold(np.zeros(10), 0)
    with pytest.raises(InputError, match="0 normal steps"):
        Calibration.of([], 0.1)


def test_a_calibration_finds_what_either_signal_shows() -> None:
    rng = np.random.default_rng(0)
    normal = Calibration.of([rng.normal([2, 0.001], [0.5, 0.0001], (400, 2)) for _ in range(10)], 0.01)
    other = rng.normal([2, 0.001], [0.5, 0.0001], (4000, 2))
    assert (normal.scores(other) > normal.threshold).mean() == pytest.approx(0.01, abs=0.006)
    assert (normal.scores(other + np.array([5, 0])) > normal.threshold).all()
    assert (normal.scores(other + np.array([0, 0.001])) > normal.threshold).mean() > 0.99


def test_what_is_mild_is_found_when_it_lasts() -> None:
    rng = np.random.default_rng(0)
    normal = Calibration.of([rng.normal(size=(400, 1)) for _ in range(10)], 0.01)
    mild = rng.normal(size=(4000, 1)) + 2
    alone = (mild > np.quantile(rng.normal(size=4000), 0.99)).mean()
    assert (normal.scores(mild) > normal.threshold).mean() > alone + 0.3


def test_a_stream_is_watched_as_the_whole_clip_is() -> None:
    world = film_world(2)
    frames = noise_frames(1, 10)
    steps = list(watched(world, iter(frames[0].movedim(1, -1).numpy()), None))
    whole = world.surprise(frames[:, :9])
    assert [one.frame for one in steps] == [2, 4, 6, 8]
    torch.testing.assert_close(torch.stack([one.surprise.nats[0] for one in steps]), whole.nats[0])
    assert steps[0].signals[2] == pytest.approx(float(whole.error[0, 0].mean().log()))
    assert [len(one.signals) for one in steps] == [4] * 4


def test_what_cannot_be_watched_is_refused() -> None:
    with pytest.raises(InputError, match="no frames to watch"):
        list(watched(film_world(2), iter(()), None))
    frames = noise_frames(1, 5)[0].movedim(1, -1).numpy()
    with pytest.raises(InputError, match="this world has actions"):
        list(watched(tiny_world(2), iter(frames), None))
    with pytest.raises(InputError, match="frames of shape"):
        list(watched(film_world(2), iter(frames[:, :8]), None))


def test_unexpected_places_are_coloured_and_alarms_are_framed() -> None:
    nats = torch.zeros(1, 2, 2)
    nats[0, 0, 1] = 20
    seen = Seen(2, Surprise(nats, nats, nats, None), np.full((2, 16, 16, 3), 100, np.uint8))
    quiet, alarm = (overlaid(seen, alarm=alarm) for alarm in (False, True))
    assert [frame.shape for frame in quiet] == [(256, 256, 3)] * 2
    assert quiet[0][200, 60].tolist() == [100] * 3
    assert quiet[0][60, 200, 0] > 150
    assert alarm[0][0, 0].tolist() == [213, 94, 0]
    plot = score_plot(np.array([0.0, 1.0, 9.0]), 5.0, np.array([0.1, 0.2, 0.3]))
    assert (plot.reshape(-1, 3) == [213, 94, 0]).all(axis=1).any()
