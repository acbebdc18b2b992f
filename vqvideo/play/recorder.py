"""What was played in the real environment, as episodes of a store."""

from __future__ import annotations

import logging
import threading

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.collect import split_of, warn_if_blank
from vqvideo.data.episode_writer import EpisodeWriter
from vqvideo.data.playing import FrameBuffer, StepBuffer
from vqvideo.data.store import StoreWriter
from vqvideo.play.reality import RealStep

SHORTEST = 16
"""Steps of an episode that is kept: a game that was left at once shows nothing."""

logger = logging.getLogger(__name__)


class Recorder:
    """Adds what several players play to one store."""

    def __init__(self, store: StoreWriter) -> None:
        self.store = store
        self._lock = threading.Lock()

    def begin(self, seed: int, frame: NDArray[np.uint8]) -> PlayedEpisode:
        """An episode that begins with a frame (h, w, 3), after a reset with this seed."""
        return PlayedEpisode(self, seed, frame)

    def keep(self, episode: PlayedEpisode, terminated: bool, truncated: bool) -> None:
        """Writes an episode to its end, if it is long enough."""
        if episode.length < SHORTEST:
            return
        episode.frames.flush()
        written = episode.writer.finish(episode.steps.finish(terminated, truncated), episode.seed)
        with self._lock:
            index = max(self.store.indices, default=-1) + 1
            warn_if_blank(written, index)
            self.store.add(index, written, split_of(index, self.store.meta.held_out_every))
        logger.info("episode %d of %s: %d steps were played", index, self.store.path, episode.length)


class PlayedEpisode:
    """One that is being played. Frames go to the disk as they come."""

    def __init__(self, recorder: Recorder, seed: int, frame: NDArray[np.uint8]) -> None:
        meta = recorder.store.meta
        self.recorder, self.seed, self.length = recorder, seed, 0
        self.writer = EpisodeWriter(recorder.store.folder)
        self.frames = FrameBuffer(meta.frame_size, self.writer, f"played from seed {seed}")
        self.steps = StepBuffer(meta.action_space)
        self.frames.add(frame, 0)

    def add(self, actions: NDArray[np.float64], step: RealStep) -> None:
        """Takes steps under flat actions (n, a), of which the first so many were taken as there are frames."""
        for action, frame, reward in zip(actions, step.frames, step.rewards, strict=False):
            self.length += 1
            self.frames.add(frame, self.length)
            self.steps.add(action, reward)

    def end(self, terminated: bool = False, truncated: bool = True) -> None:
        """Keeps it; by default one that the player has left."""
        with self.writer:
            self.recorder.keep(self, terminated, truncated or not terminated)
