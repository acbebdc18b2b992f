"""How far dreams carry, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vqvideo.scripts.benchmarks.plots import require_matplotlib
from vqvideo.storage.files import replacing


@dataclass(frozen=True)
class HorizonCurves:
    """What one variant reaches, by imagined latent step."""

    gain_db: list[float]
    """PSNR over repeating the last context frame, of each latent step."""
    frechet: dict[int, float]
    """Fréchet distance of blocks of latent steps, by the last step of the block; empty if it was not measured."""


def plot_horizons(curves: Mapping[str, HorizonCurves], window: int, title: str, path: Path) -> None:
    """Writes a PNG: gain over latent steps (logarithmic) and, where it was measured, the Fréchet distance.

    Args:
        curves: by the variant's name.
        window: latent steps that the priors look back over; marked by a line.
        title: above the picture.
        path: of the PNG.
    """
    require_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

    panels = 2 if any(curve.frechet for curve in curves.values()) else 1
    figure = Figure(figsize=(6.5 * panels, 4.5), dpi=150, layout="constrained")
    for panel, axes in enumerate(figure.subplots(1, panels, squeeze=False)[0]):
        for number, (name, curve) in enumerate(curves.items()):
            steps = list(curve.frechet) if panel else range(1, len(curve.gain_db) + 1)
            values = list(curve.frechet.values()) if panel else curve.gain_db
            axes.plot(steps, values, color=f"C{number}", marker="o" if panel else None, markersize=3, label=name)
        axes.axvline(window, color="gray", linestyle=":", linewidth=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 4, 8)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
        what = "Fréchet distance, EfficientNet-Lite0" if panel else "PSNR over repeating the last frame, dB"
        axes.set(xlabel="imagined latent step (dotted: the window)", ylabel=what)
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle(title, fontsize=11)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
