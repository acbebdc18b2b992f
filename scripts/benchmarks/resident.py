"""Memory of this process, as the system counts it. Light to import, for processes that are to stay small."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    """Size of the resident set now; outside Linux its peak so far."""
    return _status("VmRSS") if _STATUS.exists() else _of_usage(resource.RUSAGE_SELF)


def peak_resident_bytes() -> int:
    """Peak of the resident set."""
    # Not by the usage where there is another way: of a process that was started it counts what its parent had.
    return _status("VmHWM") if _STATUS.exists() else _of_usage(resource.RUSAGE_SELF)


def peak_of_children() -> int:
    """Peak of the largest process that this one started, and that has ended."""
    return _of_usage(resource.RUSAGE_CHILDREN)


def _status(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _of_usage(who: int) -> int:
    peak = resource.getrusage(who).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
