"""How well an agent plays: returns of whole episodes, with a confidence interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Act = Callable[[NDArray[np.uint8]], Any]
"""Actions (b, ...) for frames (b, h, w, 3)."""
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Returns:
    """Whole episodes of one agent."""

    returns: tuple[float, ...]
    """Sum of the rewards of each."""
    lengths: tuple[int, ...]
    """Steps of each."""

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the mean: percentiles of 10,000 bootstrap resamples of the episodes (Efron 1979),
        seed 0.
        """
        values = np.asarray(self.returns)
        picks = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
        low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
        return float(low), float(high)

    def to_json(self) -> dict[str, Any]:
        """Figures by name."""
        low, high = self.interval
        return {
            "episodes": len(self.returns),
            "mean_return": self.mean,
            "low_95": low,
            "high_95": high,
            "mean_length": float(np.mean(self.lengths)),
        }


def share_of_gain(mean: float, reference: float, random: float) -> float:
    """How much of a reference's gain over random actions an agent gains: 0 for one that is no better than random, 1 for
    one as good as the reference (the normalised score of Mnih et al. 2015).
    """
    return (mean - random) / (reference - random)


HEADS = ("return", "95 % interval", "length")


def cells(figures: Mapping[str, Any]) -> tuple[str, ...]:
    """The JSON of `Returns` under `HEADS`."""
    low, high = figures["low_95"], figures["high_95"]
    return (f"{figures['mean_return']:.2f}", f"[{low:.2f}, {high:.2f}]", f"{figures['mean_length']:.1f}")


def play_episodes(env: Any, act: Act, episodes: int, seed: int, longest: int = 1000) -> Returns:
    """Plays whole episodes; episode i is reset with seed + i.

    Args:
        env: a Gymnasium env whose observation is the frame (h, w, 3).
        act: the agent.
        episodes: how many.
        seed: of the first.
        longest: steps after which an episode is cut.
    """
    returns, lengths = [], []
    for index in range(episodes):
        frame, _ = env.reset(seed=seed + index)
        total, length, over = 0.0, 0, False
        while not over and length < longest:
            frame, reward, terminated, truncated, _ = env.step(act(frame[None])[0])
            total, length, over = total + float(reward), length + 1, terminated or truncated
        returns.append(total)
        lengths.append(length)
    return Returns(tuple(returns), tuple(lengths))
