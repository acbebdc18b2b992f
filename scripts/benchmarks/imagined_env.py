"""The benchmark of the imagined environment: what it costs over its bare world, and whether it stays as small as it
began. Options and order of events.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqvideo.errors import InputError
from vqvideo.scripts.benchmarks.subject import Benchmark

if TYPE_CHECKING:
    import torch

    from vqvideo.experiment.config import Experiment
    from vqvideo.scripts.benchmarks.env_contestants import Plan, Play
    from vqvideo.scripts.benchmarks.env_speed import Turns
    from vqvideo.scripts.benchmarks.env_worlds import RandomWorld, SavedWorld
    from vqvideo.scripts.benchmarks.report import Report

CONFIG = Path(__file__).parents[2] / "configs" / "tiny_world.yaml"
LEAST = {"horizon": 1, "starts": 1, "steps": 2, "memory_streams": 1, "rounds": 1}
"""What options must be at least."""


@dataclass(frozen=True)
class ImaginedEnvBenchmark(Benchmark):
    """Imagined steps/s of an environment beside bare stepping and peers; cost of a reset and of the start; memory."""

    config: Path = CONFIG
    """Experiment in whose shape the world with random weights is, and whose sampling is used."""
    world: str | None = None
    """Folder of a trained world, to measure that one."""
    store: Path | None = None
    """Episodes from which the dreams of the trained world begin."""
    streams: tuple[int, ...] = (1, 16, 64)
    """Environments at once."""
    horizon: int = 50
    """Latent steps after which an episode is truncated."""
    starts: int = 512
    """Beginnings of episodes, read once."""
    peers: bool = True
    """Plays single imagined environments and the real one side by side, too."""
    steps: int = 100_000
    """Imagined steps of the long play, over all its streams."""
    memory_streams: int = 16
    """Streams of the long play."""
    rounds: int = 9
    """Turns that each contestant has; figures are medians over them."""
    round_seconds: float = 0.2
    """How long a turn lasts at least."""

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag} is {getattr(self, name)}, expected at least {least}")
        if not self.streams or min(self.streams) < 1:
            raise InputError(f"--streams is {self.streams}, expected numbers of at least 1")
        if self.steps < 2 * self.memory_streams:
            raise InputError(
                f"--steps is {self.steps}, expected at least two steps for each of the {self.memory_streams} streams "
                "of --memory-streams"
            )
        if self.store is not None and self.world is None:
            raise InputError(f"--store {self.store} without --world: name the trained world that begins from it")

    @abstractmethod
    def real_env(self, name: str) -> Any:
        """The real environment of this name; InputError if there is none here."""

    @abstractmethod
    def side_by_side(self, makers: Sequence[Callable[[], Any]]) -> Any:
        """A vector environment that steps single ones in turn and begins those that are over in the same step."""

    def measure(self) -> Report:
        import torch

        from vqvideo.experiment.config import Experiment
        from vqvideo.scripts.benchmarks.env_contestants import Plan
        from vqvideo.scripts.benchmarks.report import Report
        from vqvideo.storage.records import read_yaml, to_plain, typed

        cfg = self._quick() if self.quick else self
        experiment = typed(Experiment, read_yaml(self.config), str(self.config))
        settings = asdict(replace(cfg, json=None))
        settings |= {"config": self.config.name, "store": self.store and str(self.store)}
        report = Report("env", settings | {"sampling": to_plain(experiment.sampling)}, {}, [])
        report.notes.append("an imagined step is one row of one call; CPU time is that of all threads together")
        plan = Plan(cfg._place(experiment), cfg.starts, cfg.horizon, experiment.sampling)
        for kind in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            cfg._measure_on(torch.device(kind), plan, report)
        return report

    def _measure_on(self, device: torch.device, plan: Plan, report: Report) -> None:
        from vqvideo.scripts.benchmarks.env_memory import measure_growth
        from vqvideo.scripts.benchmarks.env_speed import Turns
        from vqvideo.scripts.benchmarks.env_starts import measure_start_up
        from vqvideo.training.hardware import available_cores

        most = 1 if self.quick or device.type == "cuda" else max(1, available_cores())
        play = plan.begin(device)
        peers = self._peers(play, report)
        found: dict[str, Any] = {"steps": [], "resets": []}
        for count in sorted({1, most}):
            turns = Turns(device, count, self.rounds, self.round_seconds)
            found["steps"] += self._steps(turns, play, peers, report)
            found["resets"] += self._resets(turns, play, report)
        found["start_up"], start_up = measure_start_up(plan, Turns(device, most, min(self.rounds, 3), 0.0))
        found["memory"], memory = measure_growth(plan, self.memory_streams, self.steps, most, device)
        report.tables.extend([start_up, memory])
        report.results[device.type] = found

    def _steps(
        self, turns: Turns, play: Play, peers: Mapping[str, Callable[[int], Any]], report: Report
    ) -> list[dict[str, Any]]:
        from vqvideo.scripts.benchmarks.env_contestants import contestants
        from vqvideo.scripts.benchmarks.env_speed import load_average, measure_steps, table_of_steps

        load, records = load_average(), []
        for streams in self.streams:
            records += measure_steps(contestants(play, streams, peers), streams, turns)
        busy = "" if load is None else f", load {load:.1f} before"
        title = f"imagined steps, decoding and resets included, horizon {self.horizon}, {turns}{busy}"
        report.tables.append(table_of_steps(records, title))
        return records

    def _resets(self, turns: Turns, play: Play, report: Report) -> list[dict[str, Any]]:
        from vqvideo.scripts.benchmarks.env_starts import measure_resets, table_of_resets

        records = [record for streams in self.streams for record in measure_resets(play, streams, turns)]
        report.tables.append(table_of_resets(records, f"resets, {turns}"))
        return records

    def _place(self, experiment: Experiment) -> SavedWorld | RandomWorld:
        from vqvideo.scripts.benchmarks.dreams import Untrained
        from vqvideo.scripts.benchmarks.env_worlds import RandomWorld, SavedWorld
        from vqvideo.spaces import ActionSpace

        if self.world is not None:
            return SavedWorld(self.world, self.store)
        model, prior = experiment.vqvae.model, experiment.prior.model
        # Two places of the backbone in height and width are the fewest that attention has something to do with.
        least = 2 * prior.patch * max(model.backbone.strides[1:])
        shape = Untrained(model, prior, least if self.quick else experiment.record.frame_size)
        name = experiment.record.env
        return RandomWorld(shape, ActionSpace.from_gymnasium(self.real_env(name).action_space), name)

    def _peers(self, play: Play, report: Report) -> dict[str, Callable[[int], Any]]:
        """What makes other vector environments of so many rows, by name."""
        if not self.peers:
            return {}
        name = play.world.env.env_id
        makers = {"SyncVectorEnv of ImaginedEnv": play.single_env}
        try:
            self.real_env(name).close()
            makers[f"SyncVectorEnv of the real {name}"] = partial(self.real_env, name)
        except InputError as error:
            report.notes.append(f"without the real environment: {error}")
        return {title: partial(self._batch_of, make) for title, make in makers.items()}

    def _batch_of(self, make: Callable[[], Any], streams: int) -> Any:
        return self.side_by_side([make] * streams)

    def _quick(self) -> ImaginedEnvBenchmark:
        return replace(
            self, rounds=2, round_seconds=0.0, steps=40, memory_streams=2, horizon=4, starts=4,
            streams=(min(max(self.streams), 2),),
        )  # fmt: skip
