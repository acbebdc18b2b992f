"""Measures a world whose actions are labels, such as MNIST: does it imagine what the label says, and is it new?

    python scripts/evaluate_labels.py --name mnist
    python scripts/evaluate_labels.py --world runs/mnist/world --store data/mnist --per-label 1000

Trains a small classifier on the real frames, lets the world imagine one step under each label, and says how many the
classifier takes for their label, beside its share on real held-out frames; and how far the nearest real frame of the
training is. Writes the figures as JSON and a picture.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from vqvideo import cli
from vqvideo.errors import at_least
from vqvideo.experiment.drawing import Drawing
from vqvideo.experiment.finding import Source


@dataclass(frozen=True)
class Options(Source):
    """What to measure."""

    per_label: int = 100
    """Frames to imagine under each label."""
    epochs: int = 3
    """Epochs of the classifier."""
    columns: int = 20
    """Frames in a row of the picture."""
    sampling: tyro.conf.OmitArgPrefixes[Drawing] = field(default_factory=Drawing)
    """How codes are drawn."""
    seed: int = 0
    """Equal seeds train equal classifiers and imagine equal frames."""
    threads: int | None = None
    """CPU threads; by default measured."""
    json: Path | None = None
    """Figures; by default labels.json beside the world model. The picture lies beside them, as labels.png."""

    def __post_init__(self) -> None:
        at_least(self, "--", per_label=1, epochs=1, columns=1, seed=0)


def evaluate(options: Options) -> dict[str, Any]:
    """Measures, prints, draws and writes; returns what is written."""
    from vqvideo.evaluation.label_pictures import label_sheet
    from vqvideo.evaluation.labels import evaluate_labels
    from vqvideo.evaluation.pictures import write_png
    from vqvideo.storage.files import check_writable
    from vqvideo.training.hardware import configure_threads

    out = options.json or options.results / "labels.json"
    check_writable(out.parent)
    configure_threads(options.threads)
    world, store = options.find()
    began = time.perf_counter()
    report = evaluate_labels(
        world,
        store,
        per_label=options.per_label,
        sampling=options.sampling.of(world),
        epochs=options.epochs,
        seed=options.seed,
        columns=min(options.columns, options.per_label),
    )
    print(report.table())
    picture = out.with_suffix(".png")
    write_png(picture, label_sheet(report.shown))
    print(f"picture {picture}")
    return options.write_figures(out, world, store, time.perf_counter() - began, labels=report.to_json())


def main() -> None:
    """Reads the command line and measures."""
    evaluate(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    cli.run(main)
