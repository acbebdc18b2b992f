"""Rate-distortion curves as a picture."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqvideo.errors import InputError
from vqvideo.storage.files import replacing

if TYPE_CHECKING:
    from vqvideo.scripts.benchmarks.curves import RateDistortion

_TRIED: dict[str, Any] = {"s": 10, "alpha": 0.25, "linewidths": 0}
"""How settings look that were tried and are mostly below the curve."""


def require_matplotlib() -> None:
    """InputError with the command that installs it, unless matplotlib is there."""
    if find_spec("matplotlib") is None:
        raise InputError("the plot needs matplotlib, which is not installed: pip install matplotlib")


def plot_rate_distortion(found: RateDistortion, title: str, path: Path) -> None:
    """Writes a PNG: bits per pixel (logarithmic) against PSNR; curves of codecs, a marker for each tokenizer."""
    require_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for color, (family, points) in zip(("tab:blue", "tab:orange"), found.codecs.items(), strict=False):
        axes.scatter([p.bits_per_pixel for p in points], [p.psnr_db for p in points], color=color, **_TRIED)
        hull = found.hulls[family]
        axes.plot(
            [p.bits_per_pixel for p in hull],
            [p.psnr_db for p in hull],
            color=color,
            label=f"{family}, best of all settings",
        )
    for number, name in enumerate(dict.fromkeys(p.name.rsplit(", ", 1)[0] for p in found.ours)):
        own = [p for p in found.ours if p.name.rsplit(", ", 1)[0] == name]
        color = f"C{number + 2}"
        axes.plot([p.bits_per_pixel for p in own], [p.psnr_db for p in own], color=color, linewidth=1, alpha=0.5)
        for point, marker in zip(own, "o^", strict=False):
            axes.plot(point.bits_per_pixel, point.psnr_db, marker, color=color, label=point.name, linestyle="none")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axes.set(title=title, xlabel="bits per pixel", ylabel="PSNR in dB, RGB, mean over frames")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
