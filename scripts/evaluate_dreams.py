"""Measures how faithful dreams are: return and episode length in the dream and in reality, under the same actions.

    python scripts/evaluate_dreams.py --env CarRacing
    python scripts/evaluate_dreams.py --env CarRacing --horizon 80 --plot dreams.png

Plays held-out episodes again from their first frames. Prints returns and lengths beside their baselines, and a line per
latent step: rewards, who is still alive, and how well the ends are known; writes everything as JSON and, with --plot, a
picture.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from vqvideo import cli
from vqvideo.errors import at_least
from vqvideo.experiment.drawing import Drawing
from vqvideo.experiment.finding import Source

if TYPE_CHECKING:
    from vqvideo.evaluation.fidelity import FidelityReport


@dataclass(frozen=True)
class Options(Source):
    """What to measure."""

    horizon: int = 16
    """Latent steps to dream. Where the recording cut an episode before, it is left out: a long horizon leaves only the
    episodes that the environment ended."""
    context: int = 3
    """Latent steps that the model sees."""
    episodes: int = 64
    """Held-out episodes at most, spread over the split."""
    samples: int = 4
    """Dreams of each episode, all under the same actions."""
    sampling: tyro.conf.OmitArgPrefixes[Drawing] = field(default_factory=Drawing)
    """How codes are drawn."""
    seed: int = 0
    """Equal seeds dream equal dreams."""
    threads: int | None = None
    """CPU threads; by default measured."""
    json: Path | None = None
    """Figures; by default fidelity.json beside the world model, for a shipped one in runs/<name>."""
    plot: Path | None = None
    """Picture (PNG, PDF, SVG, ...) of returns, survival and rewards; needs matplotlib. By default none."""

    def __post_init__(self) -> None:
        at_least(self, "--", horizon=1, context=1, episodes=2, samples=1)


def evaluate(options: Options) -> dict[str, Any]:
    """Measures, prints, draws and writes; returns what is written."""
    from vqvideo.evaluation.fidelity import evaluate_fidelity
    from vqvideo.scripts.fidelity_plot import require_matplotlib
    from vqvideo.storage.files import check_writable
    from vqvideo.training.hardware import configure_threads

    out = options.json or options.results / "fidelity.json"
    check_writable(out.parent)
    if options.plot:
        require_matplotlib(options.plot)
        check_writable(options.plot.parent)
    configure_threads(options.threads)
    world, store = options.find()
    began = time.perf_counter()
    report = evaluate_fidelity(
        world,
        store,
        horizon=options.horizon,
        context=options.context,
        episodes=options.episodes,
        samples=options.samples,
        sampling=options.sampling.of(world),
        seed=options.seed,
    )
    print(report.table())
    record = options.write_figures(out, world, store, time.perf_counter() - began, fidelity=report.to_json())
    if options.plot:
        draw(report, f"Dreams of {world.env.env_id}, {options.horizon} latent steps", options.plot)
    return record


def draw(report: FidelityReport, title: str, path: Path) -> None:
    """Writes the picture."""
    from vqvideo.scripts.fidelity_plot import plot_fidelity

    path.parent.mkdir(parents=True, exist_ok=True)
    plot_fidelity(report, title, path)
    print(f"picture {path}")


def main() -> None:
    """Reads the command line and measures."""
    evaluate(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    cli.run(main)
