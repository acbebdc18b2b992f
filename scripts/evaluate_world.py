"""Measures a trained world model on the whole held-out split: what it knows when told the past, and its dreams.

    python scripts/evaluate_world.py --env CarRacing
    python scripts/evaluate_world.py --world runs/quickstart/world --store data/quickstart --horizon 80 --clips 64

Prints a table per figure, with a line per imagined latent step and a column per baseline, and writes everything as
JSON. Horizons far beyond what was trained on are welcome.
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
from vqvideo.experiment.finding import Source, clips_to_dream

if TYPE_CHECKING:
    from vqvideo.evaluation.horizon import HorizonReport


@dataclass(frozen=True)
class Options(Source):
    """What to measure."""

    clips: int = 64
    """Held-out clips to dream on from."""
    context: int = 3
    """Latent steps that the model sees."""
    horizon: int = 16
    """Latent steps to imagine."""
    teacher_steps: int = 13
    """Latent steps of the clips for the teacher-forced figures, which cover every step of the split."""
    frechet: bool = True
    """Measure Fréchet distances; needs the optional packages of vqvideo[perceptual]."""
    block: int = 8
    """Latent steps whose frames are one set of a Fréchet distance."""
    frames: int = 256
    """Largest number of frames in such a set."""
    side: int = 128
    """Pixels a side at which the network that judges the sets sees the frames; it was trained at 224, which takes five
    times as long."""
    sampling: tyro.conf.OmitArgPrefixes[Drawing] = field(default_factory=Drawing)
    """How codes are drawn."""
    seed: int = 0
    """Equal seeds dream equal dreams."""
    threads: int | None = None
    """CPU threads; by default measured."""
    compile: bool = False
    """Dream by torch.compile: it takes minutes before the first dream, and pays for long ones."""
    json: Path | None = None
    """Figures; by default evaluation.json beside the world model, for a shipped one in runs/<name>."""

    def __post_init__(self) -> None:
        at_least(self, "--", clips=2, context=1, horizon=1, teacher_steps=2, block=1, frames=4, side=32)


def evaluate(options: Options) -> dict[str, Any]:
    """Measures, prints and writes; returns what is written."""
    from vqvideo.evaluation.frame_sets import FrechetConfig
    from vqvideo.evaluation.prior import teacher_forced
    from vqvideo.evaluation.world import evaluate_world
    from vqvideo.storage.files import check_writable
    from vqvideo.training.hardware import configure_threads

    out = options.json or options.results / "evaluation.json"
    check_writable(out.parent)
    configure_threads(options.threads)
    world, store = options.find()
    if options.compile:
        world.compile_steps()
    began = time.perf_counter()
    clips = clips_to_dream(world, store, context=options.context, horizon=options.horizon)
    frechet = FrechetConfig(options.block, options.frames, options.side) if options.frechet else None
    count, how = min(options.clips, len(clips)), options.sampling.of(world)
    report = evaluate_world(world, clips, count, options.context, how, options.seed, frechet=frechet)
    told = teacher_forced(world, store, options.teacher_steps)
    cli.report(f"teacher-forced on the whole held-out split ({told['likelihood_kind']} likelihood)", numbers(told))
    print(f"\n{report.tables()}\n{summary(report, told)}")
    seconds = time.perf_counter() - began
    return options.write_figures(out, world, store, seconds, teacher_forced=told, dreams=report.to_json())


def numbers(figures: dict[str, Any]) -> dict[str, float]:
    """The figures that are numbers."""
    return {name: value for name, value in figures.items() if not isinstance(value, str)}


def summary(report: HorizonReport, told: dict[str, Any]) -> str:
    """One line on the whole."""
    first, last, worth = report.psnr_gain_db[0], report.psnr_gain_db[-1], report.controllability_db
    return (
        f"summary: {told['token_nats']:.3f} nats per token, {told['bits_per_frame']:.1f} bits per frame "
        f"({told['likelihood_kind']}); over repeating the last frame {first:+.2f} dB at step 1, {last:+.2f} dB at step "
        f"{len(report.psnr_gain_db)}"
    ) + ("" if worth is None else f"; true actions {worth:+.2f} dB over others")


def main() -> None:
    """Reads the command line and measures."""
    evaluate(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    cli.run(main)
