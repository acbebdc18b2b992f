"""The benchmark of exported worlds: ONNX Runtime beside torch, on one thread."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from vqvideo.errors import InputError, at_least
from vqvideo.scripts.benchmarks.subject import Benchmark, check_streams

if TYPE_CHECKING:
    from vqvideo.scripts.benchmarks.report import Report
    from vqvideo.scripts.benchmarks.timing import Work

TORCH, OLD = "torch", "torch, other tree"
ROOT = Path(__file__).parents[2]
COLUMNS = ("streams, contestant", "frames/s", "quartiles", "ms/step", "x torch", "x other tree")
_OTHER = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from vqvideo import Sampling, WorldModel
from vqvideo.pretrained import start_clips
world, streams = WorldModel.from_pretrained(sys.argv[2]).eval().requires_grad_(False), int(sys.argv[3])
clips = start_clips(sys.argv[2])
rows = [i % len(clips.frames) for i in range(streams)]
s, a = world.stride, world.action_space.size
state = world.start(clips.frames[rows, : 1 + 2 * s], clips.actions[rows, : 2 * s])
for line in sys.stdin:
    _, state = world.step(state, torch.zeros(streams, s, a), sampling=Sampling())
    print(flush=True)
"""
"""A dream by the code of another tree; a step for every line."""


@dataclass(frozen=True)
class ExportBenchmark(Benchmark):
    """Dreamt frames/s of an exported world, decoding included, beside the same world in torch. One CPU thread."""

    world: str = "carracing"
    """Name of a world that comes with vqvideo: dreams begin from its start clips."""
    other: Path | None = None
    """Another checkout of vqvideo, whose torch takes part: `git worktree add ../before COMMIT` makes one. It dreams the
    world of that name that comes with it, which may be another one; VQVIDEO_WORLDS=../before/vqvideo/pretrained lets
    all dream that one.
    """
    weights: tuple[str, ...] = ("fp32", "int8")
    """How weights are kept, a contestant each."""
    streams: tuple[int, ...] = (1, 16)
    """Dreams at once."""
    rounds: int = 9
    """Turns that each contestant has; figures are medians over them."""
    round_seconds: float = 0.5
    """How long a turn lasts at least."""

    def __post_init__(self) -> None:
        at_least(self, "--", rounds=1)
        check_streams(self.streams)
        if self.other is not None and not (self.other / "vqvideo").is_dir():
            raise InputError(f"--other {self.other}: no vqvideo in it, expected another checkout")

    def measure(self) -> Report:
        from vqvideo import WorldModel
        from vqvideo.export.starts import start_clips
        from vqvideo.export.writing import export_world
        from vqvideo.pretrained import start_store
        from vqvideo.scripts.benchmarks.report import Report, Table, instruction_sets

        cfg = replace(self, rounds=1, round_seconds=0.0, streams=(1,), weights=("int8",)) if self.quick else self
        world = WorldModel.from_pretrained(self.world).eval().requires_grad_(False)
        starts = start_clips(world, start_store(self.world), 24)
        report = Report("export", asdict(replace(cfg, json=None)) | {"other": self.other and self.other.name})
        with TemporaryDirectory() as folder:
            for weights in cfg.weights:
                export_world(world, Path(folder, weights), weights=weights, starts=starts)  # type: ignore[arg-type]
            records = [
                record for streams in cfg.streams for record in cfg._records(world.stride, Path(folder), streams)
            ]
        title = f"dreams of {self.world}, sampled and decoded, 1 thread"
        report.tables.append(Table(title, COLUMNS, [_row(record) for record in records]))
        report.results["dreams"] = records
        report.notes.append(instruction_sets())
        return report

    def _records(self, stride: int, folder: Path, streams: int) -> list[dict[str, Any]]:
        import torch

        from vqvideo.scripts.benchmarks.timing import speed_ratio, take_turns

        works = {f"onnxruntime {weights}": exported(folder / weights, streams) for weights in self.weights}
        # In processes of their own, for each has code of its own.
        with ExitStack() as stack:
            trees = {TORCH: ROOT, OLD: self.other}
            torches = {
                name: stack.enter_context(dreams_of(tree, self.world, streams)) for name, tree in trees.items() if tree
            }
            timings = take_turns(torches | works, torch.device("cpu"), self.rounds, self.round_seconds)
        return [
            {
                "contestant": name,
                "streams": streams,
                **timing.to_json(),
                "frames_per_s": streams * stride / timing.median,
                **{key: asdict(speed_ratio(timing, timings[of])) for key, of in _OVER.items() if of in timings},
            }
            for name, timing in timings.items()
        ]


_OVER = {"over_torch": TORCH, "over_other": OLD}


def exported(folder: Path, streams: int) -> Work:
    """Steps of an exported world."""
    import numpy as np

    from vqvideo.export import OnnxWorld

    world = OnnxWorld(folder)
    codes, actions = world.starts
    rows = np.arange(streams) % len(codes)
    state = world.start(codes=codes[rows, :3], actions=actions[rows, : 2 * world.stride], seed=0)
    still = np.zeros((streams, world.stride, world.actions))

    def step() -> None:
        nonlocal state
        _, state = world.step(state, still)

    return step


@contextmanager
def dreams_of(tree: Path, world: str, streams: int) -> Iterator[Work]:
    """Steps in torch by the code of a tree, in a process of its own that waits for its turns."""
    command = [sys.executable, "-c", _OTHER, str(tree.resolve()), world, str(streams)]
    with subprocess.Popen(command, cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines, answers = process.stdin, process.stdout

        def step() -> None:
            print(file=lines, flush=True)
            if not answers.readline():
                raise InputError(f"{tree}: its code ended, see above")

        yield step
        lines.close()


def _row(record: Mapping[str, Any]) -> tuple[str, ...]:
    from vqvideo.scripts.benchmarks.report import rate

    low, high = (record["frames_per_s"] * record["seconds"] / end for end in record["seconds_quartiles"][::-1])
    ratios = [record[key]["of_medians"] if key in record else None for key in _OVER]
    return (
        f"{record['streams']}, {record['contestant']}",
        rate(record["frames_per_s"]),
        f"{rate(low)}-{rate(high)}",
        f"{1e3 * record['seconds']:.2f}",
        *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
    )
