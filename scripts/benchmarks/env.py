"""The benchmark of the imagined environment: what it costs over bare stepping of its world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqvideo.errors import at_least
from vqvideo.scripts.benchmarks.subject import Benchmark, check_streams

if TYPE_CHECKING:
    import torch

    from vqvideo.imagined_env import ImaginedVectorEnv
    from vqvideo.scripts.benchmarks.report import Report
    from vqvideo.scripts.benchmarks.timing import Work

BARE, ENV, CODES = "WorldModel.step", "ImaginedVectorEnv", "ImaginedVectorEnv of codes"
COLUMNS = ("streams, contestant", "steps/s", "quartiles", "ms/call", "x bare")


@dataclass(frozen=True)
class EnvBenchmark(Benchmark):
    """Imagined steps/s of a batched environment, in frames and in codes, with its resets, beside bare stepping."""

    world: str = "carracing"
    """Folder of a world, or the name of one that comes with vqvideo."""
    store: Path | None = None
    """Episodes that dreams begin from; by default the start clips of a world that comes with vqvideo."""
    streams: tuple[int, ...] = (1, 16, 64)
    """Environments at once."""
    horizon: int = 50
    """Latent steps after which an episode is truncated."""
    rounds: int = 9
    """Turns that each contestant has; figures are medians over them."""
    round_seconds: float = 0.2
    """How long a turn lasts at least."""

    def __post_init__(self) -> None:
        at_least(self, "--", horizon=1, rounds=1)
        check_streams(self.streams)

    def measure(self) -> Report:
        from vqvideo.scripts.benchmarks.report import Report, Table
        from vqvideo.scripts.benchmarks.timing import devices, thread_counts

        few = (min(max(self.streams), 2),)
        cfg = replace(self, rounds=2, round_seconds=0.0, horizon=4, streams=few) if self.quick else self
        settings = asdict(replace(cfg, json=None))
        report = Report("env", settings | {"store": self.store and str(self.store)})
        report.notes.append("an imagined step is one row of one call; resets are included, and decoding but for codes")
        for device in devices():
            found = []
            for count in thread_counts(device, quick=self.quick):
                records = [record for streams in cfg.streams for record in cfg.steps(streams, count, device)]
                title = f"imagined steps of {self.world}, horizon {cfg.horizon}, {device.type}, {count} thread(s)"
                report.tables.append(Table(title, COLUMNS, [_row(record) for record in records]))
                found += records
            report.results[device.type] = {"steps": found}
        return report

    def steps(self, streams: int, cpu_threads: int, device: torch.device) -> list[dict[str, Any]]:
        """A record for the bare world, and one each for its environment of frames and of codes; they take turns."""
        from vqvideo.evaluation.speed import Dreaming
        from vqvideo.models.prior.sampling import Sampling
        from vqvideo.scripts.benchmarks.timing import speed_ratio, take_turns, threads
        from vqvideo.world import make_vector_env

        made = partial(make_vector_env, self.world, self.store, streams, device=str(device), horizon=self.horizon)
        envs, codes = (made(autoreset_mode="SameStep", observe=observe) for observe in ("frames", "codes"))
        with threads(cpu_threads):
            works: dict[str, Work] = {
                BARE: Dreaming(envs.world, streams, Sampling()),
                ENV: staggered(envs, self.horizon),
                CODES: staggered(codes, self.horizon),
            }
            timings = take_turns(works, device, self.rounds, self.round_seconds)
        facts = {"streams": streams, "threads": cpu_threads, "device": device.type}
        return [
            {
                "contestant": name,
                **facts,
                **timing.to_json(),
                "steps_per_s": streams / timing.median,
                "time_over_bare": asdict(speed_ratio(timings[BARE], timing)),
            }
            for name, timing in timings.items()
        ]


def staggered(envs: ImaginedVectorEnv, horizon: int) -> Work:
    """Steps of the environment under fixed actions, whose rows began one after the other: so do they end, and every
    turn has its share of resets.
    """
    import numpy as np

    envs.action_space.seed(0)
    actions = envs.action_space.sample()
    envs.reset(seed=0)
    for step in range(horizon):
        begins = np.arange(envs.num_envs) * horizon // envs.num_envs == step
        if begins.any():
            envs.reset(options={"reset_mask": begins})
        envs.step(actions)
    return lambda: envs.step(actions)


def _row(record: Mapping[str, Any]) -> tuple[str, ...]:
    from vqvideo.scripts.benchmarks.report import rate

    streams, ratio, (low, high) = record["streams"], record["time_over_bare"], record["seconds_quartiles"]
    return (
        f"{streams}, {record['contestant']}",
        rate(record["steps_per_s"]),
        f"{rate(streams / high)}-{rate(streams / low)}",
        f"{1e3 * record['seconds']:.2f}",
        f"{ratio['of_medians']:.3f} ({ratio['low']:.3f}-{ratio['high']:.3f})",
    )
