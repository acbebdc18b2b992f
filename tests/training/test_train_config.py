"""Settings of a training: what fits together, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from vqvideo.errors import InputError
from vqvideo.training.config import TrainConfig


@pytest.mark.parametrize(("batch", "accumulate", "world", "micro"), [(8, 2, 2, 4), (8, 1, 4, 8), (6, 3, 2, 2)])
def test_a_batch_is_split_over_micro_batches(batch: int, accumulate: int, world: int, micro: int) -> None:
    assert TrainConfig(batch=batch, accumulate=accumulate).micro_batch(world) == micro


def test_a_batch_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(InputError, match=r"batch of 8 clips cannot be split over 3 process\(es\) x 2 .* multiple of 6"):
        TrainConfig(batch=8, accumulate=2).micro_batch(3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validate_every": 0}, "train.validate_every is 0, expected at least 1"),
        ({"checkpoint_every": 0}, "train.checkpoint_every is 0"),
        ({"seed": -1}, "train.seed is -1, expected at least 0"),
        ({"max_seconds": 0.0}, "train.max_seconds is 0.0, expected more than 0"),
        ({"min_seconds": -1.0}, "train.min_seconds is -1.0, expected more than 0"),
        ({"min_seconds": 9.0, "max_seconds": 8.0}, "min_seconds is 9 and train.max_seconds 8: expected no more"),
        ({"steps": 0}, "at least 1"),
        ({"batch": 0}, "at least 1"),
        ({"accumulate": 0}, "at least 1"),
        ({"keep": 1}, "train.keep is 1, expected at least 2: the newest one may be damaged"),
        ({"average_decay": 1.0}, "train.average_decay is 1.0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(**settings)


@pytest.mark.parametrize(
    ("step", "seconds", "progress"),
    [
        (50, 10.0, 0.1),  # half of the steps, but a tenth of the time: a fast machine does more steps
        (50, 90.0, 0.5),  # a slow one takes longer than min_seconds
        (200, 100.0, 1.0),
        (100, 300.0, 1.0),
        (10, 200.0, 2 / 3),  # and ends after max_seconds, however far it came
        (10, 300.0, 1.0),
    ],
)
def test_a_run_takes_its_steps_and_its_time_but_no_more_than_its_time(
    step: int, seconds: float, progress: float
) -> None:
    train = TrainConfig(steps=100, min_seconds=100.0, max_seconds=300.0)
    assert train.progress(step, seconds) == pytest.approx(progress)
