"""Makes a store of recordings that others made.

Frames are chosen by their number after decoding, never by timestamps, and decoded one by one. A recording that is
longer than an episode may be is cut into several that do not overlap; only whole episodes are written.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vqvideo.data.collect import split_of
from vqvideo.data.config import ImportConfig
from vqvideo.data.contact_sheet import contact_sheet
from vqvideo.data.episode_writer import EpisodeWriter
from vqvideo.data.formats import Moment, reader_of
from vqvideo.data.import_plan import SHOWN, SOURCES, Piece, Plan, Work, planned, sources, to_line, told
from vqvideo.data.kept import fitted, thinned
from vqvideo.data.playing import StepBuffer
from vqvideo.data.store import StoreWriter
from vqvideo.errors import InputError
from vqvideo.storage import files

logger = logging.getLogger(__name__)


def import_data(options: ImportConfig) -> Path:
    """Says what there is to import, imports what the store lacks, and returns the folder of the store.

    Raises:
        InputError: nothing is there, something cannot be read, or the store was made with other settings.
    """
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


class _Importer:
    """Writes what a plan says into a store."""

    def __init__(self, writer: StoreWriter, plan: Plan, options: ImportConfig) -> None:
        self.writer, self.plan, self.options = writer, plan, options
        self.frames = 0
        """Stored so far."""

    def run(self) -> None:
        """Imports one recording after the other."""
        known = sources(self.writer.path)
        # Anew: without the line of an episode that was interrupted, and without half a line.
        files.write_file(self.writer.path / SOURCES, b"".join(map(to_line, known)))
        total = sum(work.kept for work in self.plan.work)
        try:
            with tqdm(total=total, unit="frame", leave=False) as bar:
                for work in self.plan.work:
                    bar.set_description(work.name)
                    self._import(work, bar)
        except KeyboardInterrupt:
            logger.warning("stopped: %d episodes are imported. The same command continues.", len(self.writer.indices))
            raise

    def _import(self, work: Work, bar: tqdm) -> None:
        moments, first = islice(work.recording.moments(), work.begin, None), work.begin
        try:
            while (after := self._episode(work, first, moments, bar)) is not None:
                first = after
        except InputError as error:
            if not self.options.skip_broken:
                raise
            logger.warning("left out from frame %d on: %s", first, error)
        else:
            if first < work.facts.frames:
                logger.warning("%s: it ends at frame %d, expected %d frames", work.name, first, work.facts.frames)
        self._note(Piece(None, work.name, work.bytes, first, first))

    def _fitted(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return fitted(frame, self.plan.meta.frame_size, self.options.fit)

    def _episode(self, work: Work, first: int, moments: Iterator[Moment], bar: tqdm) -> int | None:
        """Writes the episode that begins with frame `first`, the next of the moments; returns where the one after it
        begins, None at the end.
        """
        count, after, terminated, steps = 0, first, False, StepBuffer(self.plan.meta.action_space)
        kept = islice(thinned(moments, work.every, self.options.aggregate), self.plan.steps + 1)
        with EpisodeWriter(self.writer.folder) as episode:
            for number, moment in kept:
                after = first + number + 1
                episode.add_frames(self._fitted(moment.frame)[None])
                if count:
                    steps.add(np.array(moment.action, np.float64), moment.reward)
                count, terminated = count + 1, moment.terminated
                bar.update()
                if terminated and count > 1:
                    break
            if not count:
                return None
            # Like those between two frames that are kept, the next ones are left out.
            gap = 0 if terminated else work.every - 1
            next(islice(moments, gap, gap), None)
            after += gap
            # What is left of a recording may be a single frame, to which nothing leads.
            if count > 1:
                index = max(self.writer.indices, default=-1) + 1
                written = episode.finish(steps.finish(terminated, not terminated), first)
                self._note(Piece(index, work.name, work.bytes, first, after))
                self.writer.add(index, written, split_of(index, self.plan.meta.held_out_every))
                self.frames += count
        return after

    def _note(self, piece: Piece) -> None:
        path = self.writer.path / SOURCES
        with files.disk_errors(path), open(path, "ab", buffering=0) as file:
            file.write(to_line(piece))
            os.fsync(file.fileno())
