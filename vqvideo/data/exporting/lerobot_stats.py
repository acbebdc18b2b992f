"""What LeRobot wants to know of every feature, for normalising: least, most, mean, deviation, count, quantiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Stats = dict[str, NDArray[Any]]
"""By name: (a,) each for a feature of a numbers, (3, 1, 1) for frames, from 0 to 1."""
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def of_rows(values: NDArray[Any]) -> Stats:
    """Of a feature (T, a)."""
    numbers = values.astype(np.float64)
    return {
        **{"min": values.min(axis=0), "max": values.max(axis=0)},
        **{"mean": numbers.mean(axis=0), "std": numbers.std(axis=0), "count": np.array([len(values)])},
        **{name: np.quantile(numbers, share, axis=0) for name, share in QUANTILES.items()},
    }


class FrameStats:
    """Counts how often each value of a channel occurs, from which all else follows without keeping a frame."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), np.int64)
        self._frames = 0

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Takes frames (n, h, w, 3)."""
        self._frames += len(frames)
        for channel in range(3):
            self._counts[channel] += np.bincount(frames[..., channel].ravel(), minlength=256)

    def stats(self) -> Stats:
        """Of all frames so far, at least one."""
        values, shares = np.arange(256) / 255, self._counts / self._counts.sum(axis=1, keepdims=True)
        mean = shares @ values
        cumulated = shares.cumsum(axis=1)
        # The last value that rounding may leave unreached is 255.
        quantiles = {name: values[(cumulated < q - 1e-12).sum(axis=1).clip(0, 255)] for name, q in QUANTILES.items()}
        ends = {
            "min": values[(self._counts > 0).argmax(axis=1)],
            "max": values[255 - (self._counts[:, ::-1] > 0).argmax(axis=1)],
        }
        std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(axis=1))
        every = {**ends, "mean": mean, "std": std, **quantiles}
        return {name: value[:, None, None] for name, value in every.items()} | {"count": np.array([self._frames])}


def together(parts: Sequence[Mapping[str, NDArray[Any]]]) -> Stats:
    """Of all episodes, from those of each; quantiles, which do not follow from them, as the weighted mean."""
    counts = np.array([part["count"][0] for part in parts], np.float64)
    weights = counts / counts.sum()

    def mean(name: str) -> NDArray[Any]:
        return np.tensordot(weights, np.stack([part[name] for part in parts]).astype(np.float64), axes=1)

    spread = np.stack([part["std"] ** 2 + (part["mean"] - mean("mean")) ** 2 for part in parts])
    return {
        "min": np.stack([part["min"] for part in parts]).min(axis=0),
        "max": np.stack([part["max"] for part in parts]).max(axis=0),
        "mean": mean("mean"),
        "std": np.sqrt(np.tensordot(weights, spread, axes=1)),
        "count": np.array([int(counts.sum())]),
        **{name: mean(name) for name in QUANTILES},
    }
