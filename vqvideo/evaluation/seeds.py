"""Agents over several seeds: interquartile means, minima and intervals, which tell more than the best seed does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vqvideo.evaluation.returns import share_of_gain
from vqvideo.evaluation.tables import table

_RESAMPLES = 10_000
HEADS = ("seeds", "interquartile mean", "95 % interval", "minimum")


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of what is left when the lowest and the highest quarter, rounded down, are taken away (Agarwal et al. 2021,
    arXiv:2108.13264): of 5 seeds the middle 3.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Figures of one value per seed: `seeds`, `iqm` with `low_95` and `high_95` (percentiles of 10,000 bootstrap
    resamples of the seeds, seed 0), `minimum`, and all `values`.
    """
    given = np.asarray(values, np.float64)
    picks = np.random.default_rng(0).integers(len(given), size=(_RESAMPLES, len(given)))
    low, high = np.percentile([interquartile_mean(given[pick]) for pick in picks], [2.5, 97.5])
    return {
        "seeds": len(given),
        "iqm": interquartile_mean(given),
        "low_95": float(low),
        "high_95": float(high),
        "minimum": float(given.min()),
        "values": given.tolist(),
    }


def compare_seeds(runs: Sequence[Mapping[str, float]], random: str, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Figures of all agents, and of how much of another one's gain over random actions an agent has.

    Args:
        runs: of each seed the mean return of every agent that played.
        random: name of the random one.
        pairs: agents whose gain is a share of another one's, seed by seed.
    """
    names = list(dict.fromkeys(name for run in runs for name in run))
    agents = {name: over_seeds([run[name] for run in runs if name in run]) for name in names}
    shares = {}
    for name, of in pairs:
        known = [run for run in runs if {name, of, random} <= run.keys() and run[of] > run[random]]
        if known:
            found = [share_of_gain(run[name], run[of], run[random]) for run in known]
            shares[f"{name} / {of}"] = over_seeds(found)
    return {"agents": agents, "shares": shares}


def seed_table(figures: Mapping[str, Any]) -> str:
    """The result of `compare_seeds`: returns, then shares in percent."""
    rows = [_row(name, each, "{:.2f}") for name, each in figures["agents"].items()]
    rows += [_row(name, each, "{:.0%}") for name, each in figures["shares"].items()]
    return table(("agent", *HEADS), rows)


def _row(name: str, figures: Mapping[str, Any], form: str) -> tuple[str, ...]:
    iqm, low, high, least = (form.format(figures[key]) for key in ("iqm", "low_95", "high_95", "minimum"))
    return name, str(figures["seeds"]), iqm, f"[{low}, {high}]", least
