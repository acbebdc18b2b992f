"""The real environment under a player's keys, episode after episode."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqvideo.errors import InputError
from vqvideo.play.reality import Reality, RealStep
from vqvideo.play.recorder import PlayedEpisode, Recorder


class Game:
    """What a real environment shows while its actions come from a player, and goes on showing when the episode is over.

    Args:
        reality: the environment.
        recorder: keeps what is played.
    """

    def __init__(self, reality: Reality, recorder: Recorder | None = None) -> None:
        self.reality, self.recorder = reality, recorder
        self.over = True
        """Whether no episode is under way."""
        self._episode: PlayedEpisode | None = None
        self._actions = np.zeros((0, 0))
        self._last = np.zeros((0, 0, 3), np.uint8)

    def begin(self, seed: int, actions: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Begins an episode with actions (n, a) of its own, such as idle ones.

        Returns:
            (1 + n, h, w, 3): its first frame, and those after each action.

        Raises:
            InputError: the environment cannot be played here, or the episode ended at once.
        """
        self.leave()
        first = self.reality.reset(seed)
        self.over, self._last = False, first
        self._episode = self.recorder.begin(seed, first) if self.recorder else None
        if not len(actions):
            return first[None]
        self.begin_step(actions)
        frames = self.finish().frames
        if self.over:
            raise InputError(f"with seed {seed} the game ended within {len(actions)} steps: take another one")
        return np.concatenate([first[None], frames])

    def begin_step(self, actions: NDArray[np.float64]) -> None:
        """Takes steps under flat actions (n, a); `finish` says what they led to."""
        self._actions = actions
        if not self.over:
            self.reality.begin_step(actions)

    def finish(self) -> RealStep:
        """Waits for the steps. There are as many frames as actions: after the end of an episode its last one again.

        Raises:
            InputError: the environment broke down. What was played until then is kept.
        """
        if self.over:
            return RealStep(np.stack([self._last] * len(self._actions)), (), False, False)
        try:
            step = self.reality.finish()
        except InputError:
            self.leave()
            raise
        if self._episode is not None:
            self._episode.add(self._actions, step)
        self._last = step.frames[-1]
        if step.terminated or step.truncated:
            self.leave(step.terminated, step.truncated)
        missing = len(self._actions) - len(step.frames)
        return step._replace(frames=np.concatenate([step.frames, *[self._last[None]] * missing]))

    def leave(self, terminated: bool = False, truncated: bool = True) -> None:
        """Ends the episode; by default it is cut, as its player goes."""
        self.over = True
        episode, self._episode = self._episode, None
        if episode is not None:
            episode.end(terminated, truncated)

    def close(self) -> None:
        """Ends the episode and the environment."""
        try:
            self.leave()
        finally:
            self.reality.close()
