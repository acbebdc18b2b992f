"""How an agent improves over rounds, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vqvideo.scripts.fidelity_plot import save_figure

_CURVES = {"agent": ("tab:blue", "learnt in the dream"), "control": ("black", "learnt in the perfect dream")}
_LINES = {"random": "tab:gray", "best possible": "tab:green"}


def plot_rounds(rounds: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draws mean returns with their 95 % intervals over imagined steps, between random actions and the best player.

    Args:
        rounds: figures of each round by stage, as in rounds.json.
        title: above the picture.
        path: of the picture, PNG or what matplotlib can.
    """
    from matplotlib.figure import Figure

    played = [figures for figures in rounds if "returns" in figures]
    steps = [figures["agent"]["imagined_steps"] for figures in played]
    steps = [sum(steps[: number + 1]) for number in range(len(steps))]
    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for name, (color, label) in _CURVES.items():
        if name in played[0]["returns"]:
            found = [figures["returns"][name] for figures in played]
            axes.plot(steps, [each["mean_return"] for each in found], "o-", color=color, label=label)
            low, high = ([each[end] for each in found] for end in ("low_95", "high_95"))
            axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    for name, color in _LINES.items():
        if name in played[0]["returns"]:
            axes.axhline(played[0]["returns"][name]["mean_return"], color=color, linestyle="--", label=name)
    axes.set(xlabel="imagined steps", ylabel="return of a real episode", title=title)
    axes.legend()
    save_figure(figure, path)
