"""Trials of detectors: what is made is what its name says, figures are the textbook's, and scores look at no future."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
import torch
from tiny_models import FIVE, NOTHING, film_world, tiny_episode, tiny_world

from vqvideo.errors import InputError
from vqvideo.evaluation import detection
from vqvideo.evaluation.anomaly_trials import Trials
from vqvideo.evaluation.made_anomalies import (
    Case,
    Darkened,
    DelayedActions,
    DroppedFrames,
    Film,
    Frozen,
    Played,
    Reversed,
    Shifted,
    SwappedActions,
    Teleport,
    suite,
)

WORLD = tiny_world(2, action_dropout=0.1)


def films(count: int, steps: int = 60) -> list[Film]:
    long_ones = (e for seed in range(1000) if (e := tiny_episode(steps, seed)).length == steps)
    return [Film(e.frames, e.actions) for _, e in zip(range(count), long_ones, strict=False)]


def case(onset: int = 10, count: int = 6) -> Case:
    one, other = films(2)
    return Case(0, one, onset, count, other, FIVE, 0)


# ---------------------------------------------------------------- what is made


@pytest.mark.parametrize("anomaly", suite(FIVE), ids=lambda anomaly: f"{anomaly.name} {anomaly.severity}")
def test_every_anomaly_differs_from_what_was_and_fits_a_world(anomaly: object) -> None:
    normal, made = case(), anomaly.applied(case())  # type: ignore[attr-defined]
    assert made is not None
    assert (made.frames.shape, made.frames.dtype) == (normal.at(normal.steps).shape, np.uint8)
    assert made.actions.shape == normal.told.shape
    FIVE.validate(made.actions, "actions")
    same = np.array_equal(made.frames, normal.at(normal.steps)) and np.array_equal(made.actions, normal.told)
    assert not same
    again = anomaly.applied(case())  # type: ignore[attr-defined]
    assert np.array_equal(again.frames, made.frames)


def test_without_actions_nothing_is_made_of_them() -> None:
    assert len(suite(NOTHING)) < len(suite(FIVE))
    assert {one.family for one in suite(NOTHING)} == {"appearance", "semantics", "camera"}


def test_frames_come_in_the_order_that_the_name_says() -> None:
    one = case()
    film = one.film

    def shown(anomaly: object) -> np.ndarray:
        return anomaly.applied(one).frames  # type: ignore[attr-defined]

    assert np.array_equal(shown(Frozen(inf)), np.repeat(film.frames[10:11], 6, axis=0))
    assert np.array_equal(shown(Frozen(2)), film.frames[[10, 12, 12, 14, 14, 16]])
    assert np.array_equal(shown(DroppedFrames(2)), film.frames[12:23:2])
    assert np.array_equal(DroppedFrames(2).applied(one).actions, film.actions[10:21:2])  # type: ignore[union-attr]
    assert np.array_equal(shown(Reversed(1)), film.frames[9:3:-1])
    assert np.array_equal(Reversed(1).applied(one).actions, film.actions[9:3:-1])  # type: ignore[union-attr]
    assert np.array_equal(shown(Teleport(8)), film.frames[19:25])
    assert np.array_equal(shown(Teleport(inf)), one.other.frames[11:17])
    assert (shown(Darkened(1.0)) == 0).all()
    assert np.array_equal(shown(Shifted(0.125))[:, :, 2:], film.frames[11:17, :, :-2])


def test_commands_are_others_than_what_happens() -> None:
    one = case()
    late = DelayedActions(4).applied(one)
    opposite = SwappedActions("opposite").applied(one)
    assert late is not None
    assert opposite is not None
    assert np.array_equal(late.actions, one.film.actions[14:20])
    assert np.array_equal(late.frames, one.film.frames[11:17])
    assert np.array_equal(opposite.actions, 4 - one.told)


def test_an_episode_that_is_too_short_is_left_out() -> None:
    near_the_end = case(onset=54)
    assert Teleport(8).applied(near_the_end) is None
    assert DroppedFrames(2).applied(near_the_end) is None
    assert DelayedActions(4).applied(near_the_end) is None
    assert Frozen(inf).applied(near_the_end) is not None


# ---------------------------------------------------------------- how it is judged


def curve(anomalies: list[float], normal: list[float]) -> detection.Curve:
    return detection.curve([np.array(anomalies)], [np.array(normal)], np.ones((1, 1), np.int64))


def test_figures_are_those_of_the_textbook() -> None:
    # Of 3 x 4 pairs 9 are in order and 2 tied.
    anomalies, normal = [0.9, 0.5, 0.4], [0.5, 0.4, 0.3, 0.1]
    assert curve(anomalies, normal).auroc == pytest.approx((9 + 2 / 2) / 12)
    assert curve(normal, anomalies).auroc == pytest.approx(1 - 10 / 12)
    assert curve([3.0, 1.0], [2.0, 0.0]).average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert curve(list(range(1, 101)), list(range(10))).false_alarms == pytest.approx(1000 * 4 / 10)


def test_an_episode_that_is_taken_twice_counts_twice() -> None:
    rng = np.random.default_rng(0)
    anomalies, normal = [rng.normal(1, 1, (5, 7)), rng.normal(0, 1, (5, 9))]
    twice = detection.curve(list(anomalies), list(normal), np.array([[2, 0, 1, 1, 1]]))
    picked = [0, 0, 2, 3, 4]
    plain = detection.curve(list(anomalies[picked]), list(normal[picked]), np.ones((1, 5), np.int64))
    for name in ("auroc", "average_precision", "false_alarms"):
        assert getattr(twice, name) == pytest.approx(getattr(plain, name)), name


def test_delay_and_share_found_are_those_of_the_first_alarm() -> None:
    anomalies = [np.array([0.0, 2.0, 0.0]), np.array([0.0, 0.0, 2.0]), np.array([2.0, 2.0, 2.0]), np.zeros(3)]
    found = detection.detection(anomalies, [np.linspace(0, 1, 5)] * 4, 1.5)
    assert (found.found, found.delay) == (0.75, 1)
    assert found.share == pytest.approx(12 / 32)
    assert found.auroc.low <= found.auroc.value <= found.auroc.high


def trials(world: object = WORLD, count: int = 12) -> Trials:
    known = films(count)
    return Trials(world, known[::2], known[1::2], before=4, after=4, rate=0.1)  # type: ignore[arg-type]


def test_what_is_as_it_was_is_not_told_from_normal_and_what_is_black_is() -> None:
    found = trials()
    normal = Played(0, [Film(one.at(one.steps), one.told) for one in found.cases], "nothing", "normal")
    nothing, black = found.run(normal), found.run(Darkened(1.0))
    assert nothing is not None
    assert black is not None
    # The very scores that the whole episode has at these steps.
    for name, detected in nothing.found.items():
        if name != "random":
            expected = np.concatenate(
                [found.normal[name][i][(one.onset // 2) :][:4] for i, one in enumerate(found.cases)]
            )
            assert detected.auroc.value == pytest.approx(
                float(curve(list(expected), list(np.concatenate(found.normal[name]))).auroc[0]), abs=0.05
            )
    assert black.found["error"].auroc.value > 0.95
    assert black.found["together"].auroc.value > 0.95
    assert black.found["random"].auroc.value == pytest.approx(0.5, abs=0.2)


def test_trials_of_films_have_no_score_of_actions() -> None:
    known = [Film(one.frames, np.zeros((len(one.actions), 0))) for one in films(8)]
    found = Trials(film_world(2), known[::2], known[1::2], before=4, after=4, rate=0.1)
    assert "disobedience" not in found.normal
    assert found.run(Frozen(inf)) is not None
    assert 0 <= found.alarms()["together"] <= 1000


def test_episodes_that_are_too_short_or_too_few_are_refused() -> None:
    known = films(4, steps=10)
    with pytest.raises(InputError, match="an episode of 11 frames, expected at least 17"):
        Trials(WORLD, known[::2], known[1::2], before=4, after=4, rate=0.2)
    with pytest.raises(InputError, match="1 episodes to test with"):
        Trials(WORLD, known[::2], films(1), before=4, after=4, rate=0.2)


def test_streams_go_on_by_themselves() -> None:
    from vqvideo.models.surprise import Watch

    frames = torch.from_numpy(np.stack([one.frames for one in films(3)])).movedim(-1, 2)
    actions = torch.from_numpy(np.stack([one.actions for one in films(3)])).float()
    watch = Watch(WORLD.vqvae, WORLD.prior, frames[:, :1])
    watch.step(frames[:, 1:3], actions[:, :2])
    two = watch.rows(torch.tensor([2, 0]))
    two.step(frames[[0, 1], 5:7], actions[[0, 1], 4:6])
    alone = watch.rows(torch.tensor([2, 0])).step(frames[[2, 0], 3:5], actions[[2, 0], 2:4])
    torch.testing.assert_close(alone.nats, watch.step(frames[:, 3:5], actions[:, 2:4]).nats[[2, 0]])
