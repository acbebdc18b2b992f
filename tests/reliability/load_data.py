"""Large stores open at once, and reading them takes neither memory nor open files that grow with them."""

from __future__ import annotations

import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Generic, TypeVar

import numpy as np
from stores import make_episode, make_meta
from torch.utils.data import DataLoader

from reliability.outcome import Guarantee, Outcome
from reliability.usage import MIB, Watch, unshared_memory, usage_now
from vqvideo.data.clips import Clips
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError
from vqvideo.scripts.benchmarks.memory import in_fresh_process
from vqvideo.training.loader import StepBatches

R = TypeVar("R")
FRAMES = 100
"""Frames of an episode; 10,000 episodes are a million frames."""
CLIP, BATCH = 9, 16
LARGE = 10_000
"""Episodes from which on the time of opening counts."""
OPEN_SECONDS = 1.0
WORKERS = (2, 4)
BATCHES, EARLY = 500, 20
"""Batches that are loaded from a large store, and those after which every worker has begun."""
WORKERS_MIB = 50.0
"""Growth allowed to all workers together."""
MOST_FILES = 128
"""What a process may have open at once."""


def write_store(path: Path, episodes: int, seed: int) -> None:
    """Episodes of 100 frames of noise, 8 x 8 pixels; every tenth is held out."""
    chance, base = np.random.default_rng(seed), make_episode(FRAMES - 1)
    with StoreWriter.open(path, make_meta(frame_size=(8, 8))) as writer:
        for index in range(episodes):
            frames = chance.integers(0, 256, (FRAMES, 8, 8, 3), dtype=np.uint8)
            writer.add(index, replace(base, frames=frames), "held_out" if index % 10 == 9 else "train")


@dataclass(frozen=True)
class Opened:
    """What it takes before the first clip is read."""

    open: float
    """Seconds to open the store, the median of five."""
    processor: float
    """Seconds of them that the processor works on it: what is left on a machine that does nothing else."""
    clips: float
    """Seconds to list its clips."""
    order: float
    """Seconds to shuffle an epoch and name the clips of all its batches."""
    memory: int
    """Bytes that all of it holds."""


def large_store(work: Path, trials: int, seed: int) -> Outcome:
    """A store of `trials` episodes: opened, and read for hundreds of batches by two workers and by four."""
    write_store(work / "store", trials, seed)
    opened = in_fresh_process(_open, work / "store")
    batches = BATCHES if trials >= LARGE else BATCHES // 5
    growth = {count: in_fresh_process(_load, work / "store", count, batches) / MIB for count in WORKERS}
    failures = [
        f"{count} workers grew by {found:.1f} MiB, expected at most {WORKERS_MIB:.0f}"
        for count, found in growth.items()
        if found > WORKERS_MIB
    ]
    if trials >= LARGE and opened.processor > OPEN_SECONDS:
        failures.append(f"opening {trials} episodes took {opened.processor:.2f} s, expected at most {OPEN_SECONDS:.0f}")
    figures = {
        "open, s": opened.open,
        "open, CPU s": opened.processor,
        "list the clips, s": opened.clips,
        "order of an epoch, s": opened.order,
    }
    figures |= {"held, MiB": opened.memory / MIB}
    figures |= {f"growth of {count} workers, MiB": found for count, found in growth.items()}
    return Outcome(trials, tuple(failures), figures)


def _open(path: Path) -> Opened:
    tries = [_timed(lambda: Store.open(path)) for _ in range(5)]
    wall, processor = (median(getattr(found, clock) for found in tries) for clock in ("seconds", "processor"))
    del tries
    before = usage_now().memory
    store = Store.open(path)
    listed = _timed(lambda: Clips(store, "train", CLIP, cache_gib=0.0))
    count = len(listed.result)
    batches = StepBatches(count, BATCH, seed=0, stop=count // BATCH)
    ordered = _timed(lambda: sum(map(len, batches)))
    return Opened(wall, processor, listed.seconds, ordered.seconds, usage_now().memory - before)


def _load(path: Path, workers: int, count: int) -> int:
    """By how many bytes the unshared memory of all workers together grows from an early batch to the last one.

    Frames are not kept: the memory for that is a setting, of each worker.
    """
    clips = Clips(Store.open(path), "train", CLIP, cache_gib=0.0)
    batches, memory = StepBatches(len(clips), BATCH, seed=0, stop=count), []
    for number, _ in enumerate(_loader(clips, workers, batch_sampler=batches), 1):
        if number in (EARLY, count - 2 * workers):  # past that, workers end
            memory.append(sum(unshared_memory(worker.pid or 0) for worker in multiprocessing.active_children()))
    return memory[-1] - memory[0]


def few_files(work: Path, trials: int, seed: int, most: int = MOST_FILES) -> Outcome:
    """A clip of every one of `trials` episodes in random order, with few files open; with workers and without."""
    write_store(work / "store", trials, seed)
    failures = [line for count in (0, 2) for line in in_fresh_process(_read_all, work / "store", seed, count, most)]
    return Outcome(trials, tuple(failures))


def _read_all(path: Path, seed: int, workers: int, most: int) -> list[str]:
    store = Store.open(path)
    clips = Clips(store, "train", CLIP, cache_gib=0.0)
    order = np.random.default_rng(seed).permutation(clips.spread(len(store.split("train")))).tolist()
    what, batches = f"{workers} workers: ", -(-len(order) // BATCH)
    # By then as many episodes are open as will ever be.
    watch = Watch(min(2 * MOST_FILES // BATCH, batches // 2), batches)
    with _limited_files(most):
        try:
            for number, _ in enumerate(_loader(clips, workers, batch_size=BATCH, sampler=order), 1):
                watch.after(number)
        except (OSError, RuntimeError, InputError) as error:
            return [f"{what}{type(error).__name__}: {error!s:.300}"]
    failures = watch.failures(WORKERS_MIB, what)
    first, *_, last = watch.seen.values()
    if last.maps - first.maps > MOST_FILES:
        failures.append(f"{what}{first.maps} mapped regions became {last.maps}")
    return failures


def _loader(clips: Clips, workers: int, **order: Any) -> Iterator[Any]:
    """Batches from forked workers, as scripts have them on Linux: each shares its memory with the parent at first."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that there are fewer cores than workers
        context = "fork" if workers else None
        return iter(DataLoader(clips, num_workers=workers, multiprocessing_context=context, **order))


@contextmanager
def _limited_files(most: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@dataclass(frozen=True)
class Timed(Generic[R]):
    """What a call returned and how long it took."""

    result: R
    seconds: float
    processor: float


def _timed(work: Callable[[], R]) -> Timed[R]:
    began, busy = time.perf_counter(), time.process_time()
    result = work()
    return Timed(result, time.perf_counter() - began, time.process_time() - busy)


GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        "large-store",
        "A store of 10,000 episodes and 1,000,000 frames opens in a second, and loader workers that read it grow by at "
        "most 50 MiB together, beside the frames that they are told to keep.",
        large_store,
        fast=400,
        long=10_000,
    ),
    Guarantee(
        "few-files",
        "A store of 10,000 episodes is read by a process that may have 128 files open.",
        few_files,
        fast=300,
        long=10_000,
    ),
)
