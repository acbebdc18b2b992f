"""Measures speed and memory, beside peers where there are any, and prints tables.

    python scripts/benchmark.py tokenizer                       about four minutes on two CPU cores
    python scripts/benchmark.py tokenizer --json figures.json   with hardware, versions, repetitions
    python scripts/benchmark.py tokenizer --quick               whether it runs; its figures mean nothing
    python scripts/benchmark.py imagine                         how fast worlds dream, head by head
    python scripts/benchmark.py imagine --world runs/car_racing/world
    python scripts/benchmark.py env                             what an imagined environment costs over its world
    python scripts/benchmark.py env --world runs/tiny_world/world --store data/tiny_world
    python scripts/benchmark.py export                          dreams by ONNX Runtime beside torch, on one thread
    python scripts/benchmark.py sizes                           what frames of 64 to 256 pixels cost: some five minutes
    python scripts/benchmark.py steps                           where the time of trainings and dreams goes: a minute
    python scripts/benchmark.py store                           what imports and large stores take: three minutes
    python scripts/benchmark.py tiny-world --world runs/tiny_world/round_0/world   where it errs, against the exact game
    python scripts/benchmark.py busy                            what trainings keep of their speed beside other programs

Contestants take turns in one run. Other work on the machine shows in wall-clock figures: the load is printed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import tyro

from vqvideo import cli

if TYPE_CHECKING:
    from vqvideo.scripts.benchmarks.subject import Benchmark


def main() -> None:
    """Reads the command line, measures, prints and writes."""
    from vqvideo.scripts.benchmarks.busy import BusyBenchmark
    from vqvideo.scripts.benchmarks.env import EnvBenchmark
    from vqvideo.scripts.benchmarks.export import ExportBenchmark
    from vqvideo.scripts.benchmarks.imagine import ImagineBenchmark
    from vqvideo.scripts.benchmarks.sizes import SizesBenchmark
    from vqvideo.scripts.benchmarks.steps import StepsBenchmark
    from vqvideo.scripts.benchmarks.store import StoreBenchmark
    from vqvideo.scripts.benchmarks.tiny_world import TinyWorldBenchmark
    from vqvideo.scripts.benchmarks.tokenizer import TokenizerBenchmark

    # A new subject is its options with `measure`, and a line here.
    subjects: dict[str, Callable[..., Benchmark]] = {
        "tokenizer": TokenizerBenchmark,
        "imagine": ImagineBenchmark,
        "env": EnvBenchmark,
        "export": ExportBenchmark,
        "sizes": SizesBenchmark,
        "steps": StepsBenchmark,
        "busy": BusyBenchmark,
        "store": StoreBenchmark,
        "tiny-world": TinyWorldBenchmark,
    }
    benchmark = tyro.extras.subcommand_cli_from_dict(subjects, description=__doc__)
    from vqvideo.scripts.benchmarks.results import write_figures
    from vqvideo.storage.files import check_writable

    if benchmark.json is not None:
        check_writable(benchmark.json.parent)
    report = benchmark.measure()
    print(report)
    if benchmark.json is not None:
        write_figures(benchmark.json, report.to_json())
        print(f"\nfigures {benchmark.json}")


if __name__ == "__main__":
    cli.run(main)
