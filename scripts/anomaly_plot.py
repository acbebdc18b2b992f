"""What finds which anomaly, as a picture: a row for each anomaly, a column for each score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vqvideo.evaluation.anomaly_trials import Trial
from vqvideo.scripts.fidelity_plot import save_figure


def plot_anomalies(found: Sequence[Trial], path: Path) -> None:
    """Draws the areas under the ROC curves: 0.5 is chance, less is worse than that."""
    from matplotlib.figure import Figure

    names = list(found[0].found)
    areas = np.array([[trial.found[name].auroc.value for name in names] for trial in found])
    figure = Figure(figsize=(3 + 0.75 * len(names), 1.6 + 0.22 * len(found)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(areas, cmap="cividis", vmin=0.5, vmax=1, aspect="auto")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="left", fontsize=8)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(found)), [trial.title for trial in found], fontsize=7)
    for (row, column), area in np.ndenumerate(areas):
        ink = "black" if area > 0.8 else "white"
        axes.text(column, row, f"{area:.2f}", ha="center", va="center", fontsize=6, color=ink)
    for row in range(1, len(found)):
        if found[row].family != found[row - 1].family:
            axes.axhline(row - 0.5, color="white", linewidth=2)
    figure.colorbar(shown, ax=axes, extend="min", shrink=0.5, label="area under the ROC curve, 0.5 is chance")
    save_figure(figure, path)
