"""The work of an import in pieces that do not depend on each other: stretches of recordings become episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vqvideo.data.config import ImportConfig
from vqvideo.data.episode_writer import EpisodeWriter, WrittenEpisode
from vqvideo.data.formats import Moment, Recording
from vqvideo.data.import_plan import Plan
from vqvideo.data.kept import fitted, thinned
from vqvideo.data.playing import StepBuffer
from vqvideo.data.spans import Span
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

FRAMES = 1_000
"""Of a job at least: to begin within a film costs some dozens that are decoded for nothing."""


class Stretch(NamedTuple):
    """Episodes of a recording that follow each other."""

    work: int
    """Which of the plan's."""
    recording: Recording
    every: int
    """n, of which every n-th frame is kept."""
    spans: tuple[Span, ...]


class Made(NamedTuple):
    """What became of a span."""

    work: int
    span: Span
    episode: WrittenEpisode | None
    """None where the recording ended before it had two frames, or could not be read."""
    error: str = ""
    """What could not be read."""


def jobs(plan: Plan) -> list[list[Stretch]]:
    """All that a plan has to do, in order, in jobs of about as many frames each. They are the same however many
    processes there are.
    """
    found: list[list[Stretch]] = []
    room = 0
    for number, work in enumerate(plan.work):
        rest = work.spans(plan.steps)
        while rest:
            if room <= 0:
                found.append([])
                room = FRAMES
            count = 0
            while count < len(rest) and room > 0:
                room -= rest[count].frames
                count += 1
            found[-1].append(Stretch(number, work.recording, work.every, tuple(rest[:count])))
            rest = rest[count:]
    return found


@dataclass(frozen=True)
class EpisodeMaker:
    """Makes the episodes of stretches, in a store's folder."""

    folder: Path
    space: ActionSpace
    size: tuple[int, int]
    """(h, w) of the frames in the store."""
    fit: str
    aggregate: str

    @classmethod
    def of(cls, plan: Plan, options: ImportConfig, folder: Path) -> EpisodeMaker:
        """As a plan and the options of an import want them."""
        return cls(folder, plan.meta.action_space, plan.meta.frame_size, options.fit, options.aggregate)

    def made(self, stretch: Stretch, tick: Callable[[], object]) -> Iterator[Made]:
        """The episodes of a stretch as they are written; `tick` is called at every frame that is kept. It ends where
        the recording does, or cannot be read.
        """
        at = stretch.spans[0].first
        moments = stretch.recording.moments(at)
        for span in stretch.spans:
            try:
                # Like those between two frames that are kept, those between episodes are left out.
                next(islice(moments, span.first - at, span.first - at), None)
                episode, at = self._episode(islice(moments, span.frames), span, stretch.every, tick), span.last + 1
            except InputError as error:
                yield Made(stretch.work, span, None, str(error))
                return
            yield Made(stretch.work, span, episode)
            if episode is None:
                return

    def _episode(
        self, moments: Iterator[Moment], span: Span, every: int, tick: Callable[[], object]
    ) -> WrittenEpisode | None:
        count, terminated, steps = 0, False, StepBuffer(self.space)
        with EpisodeWriter(self.folder) as episode:
            for _, moment in thinned(moments, every, self.aggregate):
                episode.add_frames(fitted(moment.frame, self.size, self.fit)[None])
                if count:
                    steps.add(np.array(moment.action, np.float64), moment.reward)
                count, terminated = count + 1, moment.terminated
                tick()
            return episode.finish(steps.finish(terminated, not terminated), span.first) if count > 1 else None
