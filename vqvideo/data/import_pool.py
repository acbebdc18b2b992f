"""Processes that decode: jobs of an import, whose episodes come in the order of the jobs."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from vqvideo.data.import_jobs import EpisodeMaker, Made, Stretch
from vqvideo.data.main_guard import importable_main
from vqvideo.data.worker import lead_session
from vqvideo.errors import InputError

_AHEAD = 2
"""Jobs for each process that are under way or wait to be taken."""
_LOOK = 0.1
"""Seconds from one look at the progress to the next."""

_shared: tuple[EpisodeMaker, Any, Any]
"""Of a process that decodes: what makes episodes, the count of all frames, and whether to stop."""


class StoppedError(Exception):
    """The main process wants nothing more."""


def _begin(maker: EpisodeMaker, count: Any, stop: Any) -> None:
    global _shared
    lead_session("import")
    _shared = maker, count, stop


def _do(job: list[Stretch]) -> list[Made]:
    maker, count, stop = _shared

    def tick() -> None:
        if stop.is_set():
            raise StoppedError
        with count.get_lock():
            count.value += 1

    return [made for stretch in job for made in maker.made(stretch, tick)]


def in_processes(
    jobs: list[list[Stretch]], maker: EpisodeMaker, processes: int, tick: Callable[[int], object]
) -> Iterator[Made]:
    """Does jobs in so many processes.

    Args:
        jobs: in the order in which their episodes are yielded.
        maker: of the episodes.
        processes: how many.
        tick: called with the number of frames that have been made since the last call.

    Raises:
        InputError: a process died.
    """
    context = multiprocessing.get_context("spawn")
    count, stop, seen = context.Value("q", 0), context.Event(), 0
    waiting, under_way = deque(jobs), deque[Future[list[Made]]]()
    with importable_main(), ProcessPoolExecutor(processes, context, _begin, (maker, count, stop)) as pool:
        try:
            while waiting or under_way:
                while waiting and len(under_way) < _AHEAD * processes:
                    under_way.append(pool.submit(_do, waiting.popleft()))
                done, _ = wait([under_way[0]], timeout=_LOOK)
                now = int(count.value)
                tick(now - seen)
                seen = now
                if done:
                    yield from under_way[0].result()
                    under_way.popleft()
        except BrokenProcessPool as error:
            raise InputError(
                "a process that decodes died, often for lack of memory: try fewer (--workers 1). The same command goes "
                "on where it was"
            ) from error
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            _discard(under_way)


def _discard(futures: deque[Future[list[Made]]]) -> None:
    """Removes what nobody will take into the store."""
    for future in futures:
        if future.done() and not future.cancelled() and future.exception() is None:
            for made in future.result():
                if made.episode is not None:
                    made.episode.path.unlink(missing_ok=True)


def here(jobs: list[list[Stretch]], maker: EpisodeMaker, tick: Callable[[int], object]) -> Iterator[Made]:
    """Does jobs in this process."""
    for job in jobs:
        for stretch in job:
            yield from maker.made(stretch, lambda: tick(1))
