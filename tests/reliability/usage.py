"""What a process holds: memory of its own, open files, threads. Read from /proc, so on Linux only."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass, field
from pathlib import Path

from vqvideo.scripts.benchmarks.memory import give_back_free_pages

MIB = 2**20
_LOOKS = 4
"""How often a `Watch` looks after its first look. A look takes a fifth of a second, for the garbage collector."""


@dataclass(frozen=True)
class Usage:
    """What this process holds at one moment."""

    memory: int
    """Bytes of anonymous memory. Pages of files do not count: the kernel takes and drops them as it likes."""
    files: int
    """Open file descriptors."""
    maps: int
    """Mapped regions: a shard that is read stays mapped after its descriptor is closed."""
    threads: int
    """Threads."""


def usage_now() -> Usage:
    """What this process holds now. What awaits collection, and what is free in the heap, does not count."""
    gc.collect()
    give_back_free_pages()
    own = Path("/proc/self")
    maps, threads = (len((own / "maps").read_text().splitlines()), len(os.listdir(own / "task")))
    return Usage(_rollup("self", "Anonymous"), open_files(), maps, threads)


def open_files(pid: int | str = "self") -> int:
    """File descriptors that a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def unshared_memory(pid: int) -> int:
    """Bytes that a process would free if it ended: what a forked worker only reads stays shared with its parent."""
    return _rollup(pid, "Private_Dirty")


def _rollup(pid: int | str, name: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@dataclass
class Watch:
    """Looks at this process while something goes on in it: after `early` rounds, at the end, and in between."""

    early: int
    """Rounds after which all that is allocated once has been allocated."""
    rounds: int
    """How many rounds there are."""
    seen: dict[int, Usage] = field(default_factory=dict)
    """What was held after so many rounds."""

    def after(self, number: int) -> None:
        """Called when `number` rounds are done."""
        if number in {self.early + (self.rounds - self.early) * i // _LOOKS for i in range(_LOOKS + 1)}:
            self.seen[number] = usage_now()

    @property
    def growth(self) -> float:
        """By how many MiB the memory has grown since the first look."""
        looks = list(self.seen.values())
        return (looks[-1].memory - looks[0].memory) / MIB

    def failures(self, most_mib: float, what: str = "") -> list[str]:
        """In a line each: memory that grew by more than `most_mib`; more files, mappings or threads than at first."""
        if self.rounds not in self.seen:
            return [f"{what}it ended after {max(self.seen, default=0)} of {self.rounds} rounds"]
        first, last = next(iter(self.seen.values())), self.seen[self.rounds]
        found = []
        if self.growth > most_mib:
            since = f"from round {min(self.seen):,} to {self.rounds:,}"
            found.append(f"{what}memory grew by {self.growth:.1f} MiB {since}, expected at most {most_mib:.1f}")
        for name in ("files", "threads"):
            before, now = getattr(first, name), getattr(last, name)
            if now > before:
                found.append(f"{what}{before} {name} became {now}")
        return found
