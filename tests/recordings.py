"""What tests of recordings do: record, compare, and look after processes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from stub_envs import MemoryWriter, SamplePolicy

from vqvideo.data.collect import CollectReport, collect


def play(make_env: Any, writer: MemoryWriter, make_policy: Any = SamplePolicy, **settings: Any) -> CollectReport:
    defaults: dict[str, Any] = {
        "episodes": 3, "max_steps": 8, "frame_size": (16, 16), "workers": 0, "progress": False
    }  # fmt: skip
    return collect(make_env, make_policy, writer, **(defaults | settings))


def assert_same(one: MemoryWriter, two: MemoryWriter) -> None:
    assert one.splits == two.splits
    assert one.indices == two.indices
    for index in one.indices:
        for name, value in vars(one.episodes[index]).items():
            np.testing.assert_array_equal(value, getattr(two.episodes[index], name))


def wait_until(condition: Any, what: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # Where nobody adopts orphans a dead one stays listed.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
