"""How faithful dreams are, as a picture."""

from __future__ import annotations

from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqvideo.errors import InputError, MissingExtraError
from vqvideo.evaluation.fidelity import FidelityReport
from vqvideo.storage.files import make_folder, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_REAL, _DREAM, _BASELINE = "black", "tab:blue", "tab:gray"
_MARKS: dict[str, Any] = {"s": 20, "linewidths": 1}


def require_matplotlib(path: Path | None = None) -> None:
    """InputError with the command that installs it, unless matplotlib is there; also if it writes no files that end as
    `path` does.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib, which draws, is not installed", "report")
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    if path is not None and _kind(path) not in known:
        raise InputError(f"--plot {path}: plots end in {', '.join(f'.{kind}' for kind in sorted(known))}")


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure in the format that the name ends in, PNG where it has no ending."""
    make_folder(path.parent)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=_kind(path))


def _kind(path: Path) -> str:
    return path.suffix[1:].lower() or "png"


def plot_fidelity(report: FidelityReport, title: str, path: Path) -> None:
    """Draws returns in the dream against real ones, share of episodes alive, and error of the reward.

    Args:
        report: what was measured.
        title: above the picture.
        path: of the picture, PNG or what matplotlib can.
    """
    require_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(13.5, 5), dpi=150, layout="constrained")
    returns, alive, reward = figure.subplots(1, 3)
    _draw_returns(returns, report.returns)
    _draw_alive(alive, report.lengths, report.steps)
    _draw_reward(reward, report.steps)
    for axes in (returns, alive, reward):
        axes.grid(visible=True, alpha=0.3)
        axes.legend(loc="best" if axes is not reward else "upper left", fontsize=8)
    for axes in (alive, reward):
        axes.set_xlabel("latent step of the dream")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    of = f"{report.episodes} episodes of split {report.split}, dreams of each: {report.samples}"
    figure.suptitle(f"{title}\n{of}, context {report.context} latent steps, seed {report.seed}", fontsize=11)
    save_figure(figure, path)


def _draw_returns(axes: Axes, found: dict[str, Any]) -> None:
    everything = [*found["real"], *found["dream"], *found["other_actions"]]
    ends = (min(everything), max(everything))
    axes.plot(ends, ends, color=_REAL, linewidth=1, linestyle="--", label="as in reality")
    axes.scatter(
        found["real"], found["other_actions"], color=_BASELINE, marker="x", label="under other actions", **_MARKS
    )
    name = f"r = {found['correlation']:.2f}" if isfinite(found["correlation"]) else "one side constant"
    axes.scatter(found["real"], found["dream"], color=_DREAM, alpha=0.8, label=f"dream ({name})", **_MARKS)
    usual = f"training mean {found['error_training_mean']:.2f}, " if isfinite(found["error_training_mean"]) else ""
    errors = f"mean error {found['error']:.2f} ({usual}other actions {found['error_other_actions']:.2f})"
    axes.set_title(errors, fontsize=9)
    axes.set(xlabel="real return", ylabel="return in the dream")
    axes.set_aspect("equal", adjustable="datalim")


def _draw_alive(axes: Axes, lengths: dict[str, Any], steps: dict[str, Any]) -> None:
    places = range(len(steps["alive_real"]) + 1)
    axes.step(places, [1.0, *steps["alive_real"]], where="post", color=_REAL, linewidth=3, alpha=0.5, label="real")
    axes.step(places, [1.0, *steps["alive_dream"]], where="post", color=_DREAM, label="dream")
    axes.set_title(f"mean length: real {lengths['real_mean']:.2f}, dream {lengths['dream_mean']:.2f}", fontsize=9)
    axes.set(ylabel="share of episodes alive", ylim=(-0.03, 1.03))


def _draw_reward(axes: Axes, steps: dict[str, Any]) -> None:
    places = range(1, len(steps["reward_rmse"]) + 1)
    usual = steps["reward_rmse_training_mean"]
    if any(map(isfinite, usual)):
        axes.plot(places, usual, color=_BASELINE, linestyle="--", label="mean of the training episodes")
    axes.plot(places, steps["reward_rmse"], color=_DREAM, marker=".", label="dream")
    axes.set_title("where the real episode is alive", fontsize=9)
    axes.set_ylabel("RMSE of the reward of the step")
    # Room for the legend.
    axes.margins(y=0.2)
    axes.set_ylim(bottom=0)
