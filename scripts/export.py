"""Writes a trained world as ONNX graphs, which dream without torch: in Python by onnxruntime, or in a browser.

    python scripts/export.py --world carracing                       into exports/car_racing_onnx
    python scripts/export.py --world runs/car_racing/world --out my_world --weights fp16
    python scripts/export.py --name tiny_world                       the run that was trained here, and its episodes

The folder appears when it is complete. Start clips, of held-out episodes, go along as codes. Needs vqvideo[onnx]; what
dreams by the result needs onnxruntime and numpy only: vqvideo.export.OnnxWorld(folder).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from vqvideo import cli
from vqvideo.experiment.finding import Source


@dataclass(frozen=True)
class Options(Source):
    """What to export, and whereto."""

    out: Path | None = None
    """Folder of the graphs; by default exports/<run>_onnx."""
    weights: Literal["fp32", "fp16", "int8"] = "fp32"
    """How weights are kept; smaller ones are measured on the start clips. All arithmetic is in single precision."""
    clips: int = 24
    """Start clips that go along, at most; 0 for none."""


def export(options: Options) -> None:
    """Exports, measures what narrower weights cost, and says how the result is used."""
    from vqvideo.data.export import check_free
    from vqvideo.export.costs import costs
    from vqvideo.export.starts import start_clips
    from vqvideo.export.writing import check_exportable, export_world

    out = options.out or Path("exports") / f"{options.results.name}_onnx"
    check_free(out)
    world = options.find_world().cpu().eval().requires_grad_(False)
    check_exportable(world)
    starts = start_clips(world, options.find_store(), options.clips) if options.clips else None
    out.parent.mkdir(parents=True, exist_ok=True)
    manifest = export_world(
        world, out, weights=options.weights, starts=starts, fingerprint=world.fingerprint(), replace=out.is_dir()
    )
    for name, record in manifest.files.items():
        print(f"{name:20s} {record.size / 1e6:7.2f} MB")
    if options.weights != "fp32" and starts is not None:
        print(costs(world, options.weights, *starts))
    print(f'{out}: vqvideo.export.OnnxWorld("{out}") dreams, and gymnasium.make("vqvideo/Imagined-v0", world="{out}")')


def main() -> None:
    """Reads the command line and exports."""
    export(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    cli.run(main)
