"""How well a score tells anomalies from what is normal: area under the ROC curve, precision, false alarms, delay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_RESAMPLES = 200
_RECALL = 0.95


class Interval(NamedTuple):
    """A figure, and where 95 % of those of resampled episodes lie."""

    value: float
    low: float
    high: float


class Detection(NamedTuple):
    """How well a score finds one kind of anomaly."""

    auroc: Interval
    average_precision: Interval
    """Its floor is `share`."""
    share: float
    """Of the steps that are anomalies."""
    false_alarms: Interval
    """Per 1,000 normal steps, where 95 % of the steps of anomalies are found."""
    found: float
    """Share of the episodes that raise an alarm at the chosen threshold."""
    delay: float
    """Latent steps up to that alarm, median over those that do; 0: the first one. NaN if none does."""


class Curve(NamedTuple):
    """What thresholds from the highest to the lowest find, one for each score that occurs; (r, t) for r resamples."""

    hits: Array
    """Weight of the steps of anomalies at or above it."""
    alarms: Array
    """Weight of the normal steps."""

    @property
    def auroc(self) -> Array:
        """(r,): the probability that a step of an anomaly scores above a normal one; of ties, a half."""
        hits, alarms = (np.pad(counts, ((0, 0), (1, 0))) for counts in self)
        area = (np.diff(alarms, axis=1) * (hits[:, 1:] + hits[:, :-1]) / 2).sum(axis=1)
        return area / (hits[:, -1] * alarms[:, -1])

    @property
    def average_precision(self) -> Array:
        """(r,): the precision at each threshold, weighted by the recall that it adds."""
        gained = np.diff(self.hits, axis=1, prepend=0)
        precision = self.hits / np.maximum(self.hits + self.alarms, 1e-12)
        return (precision * gained).sum(axis=1) / self.hits[:, -1]

    @property
    def false_alarms(self) -> Array:
        """(r,): per 1,000 normal steps, at the highest threshold that finds 95 % of the steps of anomalies."""
        enough = (self.hits >= _RECALL * self.hits[:, -1:] - 1e-9).argmax(axis=1)
        return 1000 * self.alarms[np.arange(len(enough)), enough] / self.alarms[:, -1]


def curve(anomalies: Sequence[Array], normal: Sequence[Array], times: NDArray[np.int64]) -> Curve:
    """Of the steps of anomalies (n,) and the normal ones (m,) of e episodes, each taken so many `times`, (r, e)."""
    parts = (*anomalies, *normal)
    scores, lengths = np.concatenate(parts), [len(part) for part in parts]
    order = np.argsort(-scores, kind="stable")
    bad = np.repeat(np.arange(len(parts)) < len(anomalies), lengths)[order]
    weights = np.repeat(np.tile(times, 2), lengths, axis=1)[:, order]
    last = np.append(np.diff(scores[order]) != 0, True)
    return Curve(*((weights * kind).cumsum(axis=1)[:, last].astype(np.float64) for kind in (bad, ~bad)))


def detection(anomalies: Sequence[Array], normal: Sequence[Array], threshold: float, seed: int = 0) -> Detection:
    """Of the scores of e episodes after the onset (n,), of their normal steps (m,), and a threshold.

    Intervals are by the percentile bootstrap (Efron 1979) over episodes, since the steps of one resemble each other.
    """
    count = len(anomalies)
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    found = curve(anomalies, normal, np.concatenate([np.ones((1, count), np.int64), times]))
    alarms = [episode > threshold for episode in anomalies]
    first = [int(episode.argmax()) for episode in alarms if episode.any()]
    steps = sum(map(len, anomalies))
    return Detection(
        auroc=_interval(found.auroc),
        average_precision=_interval(found.average_precision),
        share=steps / (steps + sum(map(len, normal))),
        false_alarms=_interval(found.false_alarms),
        found=len(first) / count,
        delay=float(np.median(first)) if first else float("nan"),
    )


def _interval(values: Array) -> Interval:
    """The first one, with an interval of the others."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Interval(float(values[0]), float(low), float(high))
