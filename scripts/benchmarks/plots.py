"""Rate-distortion curves, and how far dreams carry, as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqvideo.scripts.benchmarks.curves import Point, RateDistortion
from vqvideo.scripts.fidelity_plot import require_matplotlib, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TRIED: dict[str, Any] = {"s": 10, "alpha": 0.25, "linewidths": 0}
"""How settings look that were tried and are mostly below the curve."""


@dataclass(frozen=True)
class HorizonCurves:
    """What one variant reaches, by imagined latent step."""

    gain_db: list[float]
    """PSNR over repeating the last context frame, of each latent step."""
    frechet: dict[int, float]
    """Fréchet distance of blocks of latent steps, by the last step of the block; empty if it was not measured."""


def plot_rate_distortion(found: RateDistortion, title: str, path: Path) -> None:
    """Draws bits per pixel (logarithmic) against PSNR; curves of codecs, a marker for each tokenizer."""
    figure = _figure(8, 5)
    axes = figure.add_subplot()
    for color, (family, points) in zip(("tab:blue", "tab:brown", "tab:orange"), found.codecs.items(), strict=False):
        axes.scatter(*_places(points), color=color, **_TRIED)
        axes.plot(*_places(found.hulls[family]), color=color, label=f"{family}, best of all settings")
    for number, name in enumerate(dict.fromkeys(p.name.rsplit(", ", 1)[0] for p in found.ours)):
        own = [p for p in found.ours if p.name.rsplit(", ", 1)[0] == name]
        color = f"C{number + 2}"
        axes.plot(*_places(own), color=color, linewidth=1, alpha=0.5)
        for point, marker in zip(own, "o^" if len(own) > 1 else "*", strict=False):
            axes.plot(point.bits_per_pixel, point.psnr_db, marker, color=color, label=point.name, linestyle="none")
    _logarithmic(axes, ticks=(1, 2, 5))
    axes.set(title=title, xlabel="bits per pixel", ylabel="PSNR in dB, RGB, mean over frames")
    axes.legend(loc="lower right", fontsize=8)
    save_figure(figure, path)


def plot_horizons(curves: Mapping[str, HorizonCurves], window: int, title: str, path: Path) -> None:
    """Draws gain over latent steps (logarithmic) and, where it was measured, the Fréchet distance.

    Args:
        curves: by the variant's name.
        window: latent steps that the priors look back over; marked by a line.
        title: above the picture.
        path: of the picture, PNG or what matplotlib can.
    """
    panels = 2 if any(curve.frechet for curve in curves.values()) else 1
    figure = _figure(6.5 * panels, 4.5)
    gain, *distance = figure.subplots(1, panels, squeeze=False)[0]
    gain.set_ylabel("PSNR over repeating the last frame, dB")
    for name, curve in curves.items():
        gain.plot(range(1, len(curve.gain_db) + 1), curve.gain_db, label=name)
        for axes in distance:
            axes.plot(list(curve.frechet), list(curve.frechet.values()), marker="o", markersize=3, label=name)
            axes.set_ylabel("Fréchet distance, EfficientNet-Lite0")
    for axes in (gain, *distance):
        axes.axvline(window, color="gray", linestyle=":", linewidth=1)
        _logarithmic(axes, ticks=(1, 2, 4, 8))
        axes.set_xlabel("imagined latent step (dotted: the window)")
        axes.legend(fontsize=8)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def _figure(width: float, height: float) -> Figure:
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def _places(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [p.bits_per_pixel for p in points], [p.psnr_db for p in points]


def _logarithmic(axes: Axes, ticks: tuple[int, ...]) -> None:
    """A logarithmic x axis with plain numbers at `ticks` times the powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axes.grid(visible=True, which="major", alpha=0.3)
