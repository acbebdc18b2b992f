"""Measures speed and memory, beside peers where there are any, and prints tables.

    python scripts/benchmark.py tokenizer                       about four minutes on two CPU cores
    python scripts/benchmark.py tokenizer --json figures.json   with hardware, versions, repetitions
    python scripts/benchmark.py tokenizer --quick               whether it runs; its figures mean nothing
    python scripts/benchmark.py imagine                         how fast worlds dream, head by head
    python scripts/benchmark.py imagine --world runs/car_racing/world
    python scripts/benchmark.py env                             what an imagined environment costs over its world
    python scripts/benchmark.py env --world runs/tiny_world/world --store data/tiny_world
    python scripts/benchmark.py checkpoint                      what it costs that checkpoints are durable and checked

Contestants take turns in one run. Other work on the machine shows in wall-clock figures: the load is printed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from vqvideo import cli
from vqvideo.scripts.benchmarks.checkpoints import CheckpointBenchmark
from vqvideo.scripts.benchmarks.imagine import ImagineBenchmark
from vqvideo.scripts.benchmarks.imagined_env import ImaginedEnvBenchmark
from vqvideo.scripts.benchmarks.subject import Benchmark
from vqvideo.scripts.benchmarks.tokenizer import TokenizerBenchmark


@dataclass(frozen=True)
class EnvBenchmark(ImaginedEnvBenchmark):
    """Imagined steps/s of an environment beside bare stepping and peers; cost of a reset and of the start; memory."""

    def real_env(self, name: str) -> Any:
        from vqvideo import envs

        return envs.make(envs.resolve(name))

    def side_by_side(self, makers: Sequence[Callable[[], Any]]) -> Any:
        from gymnasium.vector import AutoresetMode, SyncVectorEnv

        return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)


SUBJECTS: dict[str, type[Benchmark]] = {
    "tokenizer": TokenizerBenchmark,
    "imagine": ImagineBenchmark,
    "env": EnvBenchmark,
    "checkpoint": CheckpointBenchmark,
}
"""What can be measured. A new subject is its options with `measure`, and a line here."""


def main() -> None:
    """Reads the command line, measures, prints and writes."""
    benchmark = tyro.extras.subcommand_cli_from_dict(SUBJECTS, description=__doc__)
    from vqvideo.storage import files
    from vqvideo.storage.records import without_nan

    report = benchmark.measure()
    print(report)
    if benchmark.json is not None:
        text = json.dumps(without_nan(report.to_json()), indent=2, allow_nan=False) + "\n"
        files.write_file(benchmark.json, text.encode())
        print(f"\nfigures {benchmark.json}")


if __name__ == "__main__":
    cli.run(main)
