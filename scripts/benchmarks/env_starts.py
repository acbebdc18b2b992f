"""What it costs an imagined environment to begin: reading its starts once, and each reset after that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vqvideo.scripts.benchmarks.dreams import state_bytes
from vqvideo.scripts.benchmarks.env_contestants import Plan, Play
from vqvideo.scripts.benchmarks.env_speed import Turns
from vqvideo.scripts.benchmarks.env_worlds import CONTEXT
from vqvideo.scripts.benchmarks.report import Table
from vqvideo.scripts.benchmarks.timing import Work

if TYPE_CHECKING:
    from vqvideo.imagined_env import ImaginedVectorEnv

WAYS = ("one row", "all rows", "one row, from a new frame")
"""How rows begin anew; a new frame has to be read first."""


def measure_resets(play: Play, streams: int, turns: Turns) -> list[dict[str, Any]]:
    """A record for each way to begin rows anew."""
    envs = play.envs(streams)
    envs.reset(seed=0)
    one, every = np.arange(streams) == 0, np.ones(streams, dtype=bool)
    frame = play.starts.frames[:1].cpu().numpy()
    options = ({"reset_mask": one}, {"reset_mask": every}, {"reset_mask": one, "frames": frame})
    timings = turns.time({way: _resetting(envs, its) for way, its in zip(WAYS, options, strict=True)})
    begun = (1, streams, 1)
    return [
        {"begun": way, "streams": streams, "rows": rows, "ms_per_row": 1e3 * timings[way].median / rows, **turns.facts}
        for way, rows in zip(WAYS, begun, strict=True)
    ]


def table_of_resets(records: Sequence[Mapping[str, Any]], title: str) -> Table:
    """The records for reading."""
    table = Table(title, ("streams, begun", "ms/row"))
    for record in records:
        table.rows.append((f"{record['streams']}, {record['begun']}", f"{record['ms_per_row']:.3f}"))
    return table


def measure_start_up(plan: Plan, turns: Turns) -> tuple[dict[str, Any], Table]:
    """Reads the starts: seconds, and bytes that each one takes as long as the environment lives."""
    from vqvideo.imagined_env.starts import read_starts

    world = plan.world(turns.device)
    given = plan.place.beginnings(world, plan.starts)
    seconds = turns.time({"read": lambda: read_starts(world, given, CONTEXT, plan.starts)})["read"].median
    read = read_starts(world, given, CONTEXT, plan.starts)
    count, held = len(read), state_bytes((read.state, read.frames, read.source))
    table = Table(f"reading the starts, {turns}", ("", "seconds", "ms/start", "kB/start"))
    cells = (f"{seconds:.3f}", f"{1e3 * seconds / count:.2f}", f"{held / count / 1e3:.1f}")
    table.rows.append((f"{count} starts", *cells))
    return {"starts": count, "seconds": seconds, "bytes_per_start": held / count, **turns.facts}, table


def _resetting(envs: ImaginedVectorEnv, options: dict[str, Any]) -> Work:
    return lambda: envs.reset(options=options)
