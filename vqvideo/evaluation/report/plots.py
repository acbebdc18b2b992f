"""Plots as SVG that is part of the page: in the colour of its text, light or dark, and in colours that colour-blind
people tell apart. Lines also differ in their dashes.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = Sequence[float] | NDArray[np.float64]

INK = "#010203"
"""Stands for the colour of the page's text until the picture is part of the page."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Of Okabe and Ito 2008, "Color universal design": blue, vermilion, bluish green, reddish purple. In the page they are
its variables --line-1 .. --line-4, which are lighter in the dark."""
DASHES = ("-", "--", "-.", ":")
_SIZE = (4.6, 3.3)
"""Inches, of which a small screen shows the width."""


class Line(NamedTuple):
    """A line of a plot."""

    label: str
    x: Values
    y: Values
    colour: str = COLOURS[0]
    dash: str = "-"
    band: tuple[Values, Values] | None = None
    """Lower and upper end of a band around it."""


def style(number: int) -> tuple[str, str]:
    """Colour and dashes of the line of a run by its number: all of the first sixteen differ."""
    return COLOURS[number % len(COLOURS)], DASHES[(number + number // len(COLOURS)) % len(DASHES)]


def line_plot(title: str, x_label: str, y_label: str, lines: Sequence[Line], scale: str = "linear") -> str:
    """Lines over whole numbers; `scale` is that of the y axis, linear or log."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(title)
    for line in lines:
        mark: dict[str, Any] = {"marker": "." if len(line.x) <= 40 else None, "linewidth": 1.8}
        axes.plot(line.x, line.y, color=line.colour, linestyle=line.dash, label=line.label, **mark)
        if line.band:
            axes.fill_between(line.x, *line.band, color=line.colour, alpha=0.2, linewidth=0)
    axes.set(xlabel=x_label, ylabel=y_label, yscale=scale)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    return _svg(figure, axes, title, legend=len(lines) > 1)


def bar_plot(title: str, x_label: str, bars: Mapping[str, Mapping[str, float]]) -> str:
    """Horizontal bars on a logarithmic axis: what each is, and its value for each run."""
    figure, axes = _figure(title)
    runs = list(next(iter(bars.values())))
    height = 0.8 / len(runs)
    for number, run in enumerate(runs):
        places = [row + height * (number - (len(runs) - 1) / 2) for row in range(len(bars))]
        drawn = axes.barh(places, [values[run] for values in bars.values()], height, label=run)
        for bar in drawn:
            bar.set(facecolor=style(number)[0], linewidth=0)
        axes.bar_label(drawn, [f"{values[run]:,.0f}" for values in bars.values()], padding=3, color=INK, fontsize=8)
    axes.set(xlabel=x_label, xscale="log")
    axes.set_yticks(range(len(bars)), list(bars))
    axes.invert_yaxis()
    axes.margins(x=0.25)
    return _svg(figure, axes, title, legend=len(runs) > 1)


def _figure(title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, color=INK, loc="left", fontsize=9, fontweight="bold")
    return figure, axes


def _svg(figure: Figure, axes: Axes, title: str, *, legend: bool) -> str:
    from matplotlib import rc_context

    axes.grid(visible=True, color=INK, alpha=0.15)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", color=INK, labelcolor=INK, labelsize=8)
    for side, spine in axes.spines.items():
        spine.set(edgecolor=INK, visible=side in ("left", "bottom"))
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=9)
    axes.patch.set_alpha(0)
    if legend:
        shown = {"loc": "outside lower left", "ncols": 2, "frameon": False, "fontsize": 8, "labelcolor": INK}
        figure.legend(**shown)
    buffer = io.StringIO()
    # Text stays text, in the font of the page; names inside of the picture are its own, and no clock's.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    for number, colour in enumerate(COLOURS, 1):
        svg = svg.replace(colour, f"var(--line-{number})")
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)
    return f"<figure>{svg}</figure>"
