"""How an agent improves over rounds, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vqvideo.scripts.fidelity_plot import save_figure

_CURVES = {"agent": ("tab:blue", "learnt in the dream"), "control": ("black", "learnt in the perfect dream")}
_CHECKS = {"dream": ("tab:orange", "in the dream"), "game": ("tab:blue", "in the game")}
_LINES = {"random": "tab:gray", "best possible": "tab:green"}


def plot_rounds(rounds: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draws mean returns with their 95 % intervals over imagined steps: of whole real episodes, between random actions
    and the best player; and beside them what dreams promised on the way, and what came of it.

    Args:
        rounds: figures of each round by stage, as in rounds.json.
        title: above the picture.
        path: of the picture, PNG or what matplotlib can.
    """
    from matplotlib.figure import Figure

    played = [figures for figures in rounds if "returns" in figures]
    ends = np.cumsum([figures["agent"]["imagined_steps"] for figures in played])
    checks = [
        {**check, "steps": end - figures["agent"]["imagined_steps"] + check["steps"]}
        for figures, end in zip(played, ends, strict=True)
        for check in figures["agent"].get("checks", ())
    ]
    figure = Figure(figsize=(12 if checks else 7, 4.5), dpi=150, layout="constrained")
    axes, *beside = np.atleast_1d(figure.subplots(1, 2 if checks else 1))
    for name, (color, label) in _CURVES.items():
        found = [
            (end, figures["returns"][name])
            for end, figures in zip(ends, played, strict=True)
            if name in figures["returns"]
        ]
        if found:
            _curve(axes, [end for end, _ in found], [each for _, each in found], color, label)
    for name, color in _LINES.items():
        if name in played[0]["returns"]:
            axes.axhline(played[0]["returns"][name]["mean_return"], color=color, linestyle="--", label=name)
    axes.set(xlabel="imagined steps", ylabel="return of a real episode", title=title)
    for other in beside:
        for name, (color, label) in _CHECKS.items():
            _curve(other, [check["steps"] for check in checks], [check[name] for check in checks], color, label)
        other.set(xlabel="imagined steps", ylabel="return of an episode cut as dreams are", title="what dreams promise")
    for each in (axes, *beside):
        each.legend()
    save_figure(figure, path)


def _curve(axes: Any, steps: Sequence[int], returns: list[dict[str, Any]], color: str, label: str) -> None:
    """Means and intervals of the JSON of `Returns`."""
    axes.plot(steps, [each["mean_return"] for each in returns], "o-", color=color, label=label)
    low, high = ([each[end] for each in returns] for end in ("low_95", "high_95"))
    axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
