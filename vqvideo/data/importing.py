"""Makes a store of recordings that others made.

Frames are chosen by their number after decoding, never by timestamps, and decoded one by one. A recording that is
longer than an episode may be is cut into several that do not overlap; only whole episodes are written.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from vqvideo.data import store_hub
from vqvideo.data.config import ImportConfig
from vqvideo.data.contact_sheet import contact_sheet
from vqvideo.data.formats import reader_of
from vqvideo.data.import_jobs import EpisodeMaker, Made, jobs
from vqvideo.data.import_plan import SHOWN, SOURCES, Piece, Plan, planned, sources, to_line, told
from vqvideo.data.import_pool import here, in_processes
from vqvideo.data.index import META
from vqvideo.data.main_guard import end_second_recording
from vqvideo.data.store import Store, StoreWriter
from vqvideo.data.workers import cores
from vqvideo.errors import InputError
from vqvideo.storage import files

logger = logging.getLogger(__name__)


def import_data(options: ImportConfig) -> Path:
    """Says what there is to import, imports what the store lacks, and returns the folder of the store.

    Raises:
        InputError: nothing is there, something cannot be read, or the store was made with other settings.
    """
    end_second_recording()
    if options.repository is not None:
        return _from_hub(options, options.repository)
    plan = planned(options, *reader_of(options))
    print("\n".join(told(options, plan)), flush=True)
    if plan.broken and not options.skip_broken:
        raise InputError(
            f"{len(plan.broken)} of {len(plan.broken) + len(plan.work)} recordings cannot be read:\n  "
            + "\n  ".join(plan.broken[:SHOWN])
            + "\nRepair them, move them away, or leave them out: --skip-broken"
        )
    if not plan.episodes and not plan.before:
        raise InputError(f"{options.source}: no recording has two frames to make an episode of")
    if not options.dry_run and plan.episodes:
        with StoreWriter.open(options.folder, plan.meta) as writer:
            importer = _Importer(writer, plan, options)
            importer.run()
        print(f"{options.folder}: {len(writer.indices) - plan.before} new episodes, {importer.frames} frames")
    if options.dry_run and plan.episodes:
        print(f"{contact_sheet(plan, options)} shows frames as they would be stored")
    return options.folder


def _from_hub(options: ImportConfig, repository: str) -> Path:
    """Imports what is in a repository; a store comes as it is."""
    snapshot = store_hub.snapshot(repository)
    if not (snapshot / META).is_file():
        options = replace(options, source=snapshot, title=options.name, out=options.folder)
        return import_data(options)
    if options.dry_run:
        print(f"{repository} is a store: it would come into {options.folder} as it is")
    else:
        store = Store.from_hub(repository, options.folder)
        print(f"{options.folder}: {len(store.entries)} episodes, as they are in {repository}")
    return options.folder


class _Importer:
    """Writes what a plan says into a store."""

    def __init__(self, writer: StoreWriter, plan: Plan, options: ImportConfig) -> None:
        self.writer, self.plan, self.options = writer, plan, options
        self.frames = 0
        """Stored so far."""
        self._left_out: set[int] = set()
        """Works that could not be read to their end."""

    def run(self) -> None:
        """Imports one recording after the other."""
        known = sources(self.writer.path)
        # Anew: without the line of an episode that was interrupted, and without half a line.
        files.write_file(self.writer.path / SOURCES, b"".join(map(to_line, known)))
        total = sum(work.kept for work in self.plan.work)
        try:
            with tqdm(total=total, unit="frame", leave=False) as bar, closing(self._made(bar.update)) as all_made:
                begun = 0
                for made in all_made:
                    for number in range(begun, made.work):
                        self._ended(number)
                    begun = made.work
                    bar.set_description(self.plan.work[begun].name, refresh=False)
                    self._take(made)
                for number in range(begun, len(self.plan.work)):
                    self._ended(number)
        except KeyboardInterrupt:
            logger.warning("stopped: %d episodes are imported. The same command continues.", len(self.writer.indices))
            raise

    def _made(self, tick: Callable[[int], object]) -> Generator[Made, None, None]:
        todo = jobs(self.plan)
        maker = EpisodeMaker.of(self.plan, self.options, self.writer.folder)
        processes = min(cores() if self.options.workers is None else self.options.workers, len(todo))
        yield from in_processes(todo, maker, processes, tick) if processes > 1 else here(todo, maker, tick)

    def _take(self, made: Made) -> None:
        """Adds an episode to the store, unless something before it in its recording could not be read."""
        work, span = self.plan.work[made.work], made.span
        if made.work in self._left_out:
            if made.episode is not None:
                made.episode.path.unlink(missing_ok=True)
        elif made.episode is None:
            if made.error and not self.options.skip_broken:
                raise InputError(made.error)
            ended = f"{work.name}: it ends before it has two more, expected {work.facts.frames}"
            logger.warning("left out from frame %d on: %s", span.first, made.error or ended)
            self._left_out.add(made.work)
        else:
            index = max(self.writer.indices, default=-1) + 1
            after = span.last + (1 if span.terminated else work.every)
            self._note(Piece(index, work.name, work.bytes, span.first, after))
            expected = -(-(span.last - span.first) // work.every)
            if made.episode.length < expected:
                logger.warning(
                    "%s: %d frames are missing from frame %d on", work.name, expected - made.episode.length, span.first
                )
            self.writer.add(index, made.episode, work.split_of(index, self.plan.meta.held_out_every))
            self.frames += made.episode.length + 1

    def _ended(self, number: int) -> None:
        """Notes that nothing more of a recording is to be imported."""
        work = self.plan.work[number]
        self._note(Piece(None, work.name, work.bytes, work.facts.frames, work.facts.frames))

    def _note(self, piece: Piece) -> None:
        path = self.writer.path / SOURCES
        with files.disk_errors(path), open(path, "ab", buffering=0) as file:
            file.write(to_line(piece))
            os.fsync(file.fileno())
