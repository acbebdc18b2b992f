"""The real game from recorded moments on: what a dream that begins there is measured by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from vqvideo.data.moments import Moment
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace


class FromMoments(gymnasium.Wrapper):
    """Begins every episode at a recorded moment drawn at random: resets with the episode's seed, and takes the recorded
    actions up to there. The `start` in the info of a reset is the moment's number.

    Args:
        env: the environment that was recorded, with the stored frames as observations.
        moments: of its episodes.

    Raises:
        InputError: at a reset: the environment did not come to the recorded frame, so it does not repeat itself.
    """

    def __init__(self, env: gymnasium.Env, moments: Sequence[Moment]) -> None:
        super().__init__(env)
        self.moments, self.space = moments, ActionSpace.from_gymnasium(env.action_space)
        self.rng = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        moment = self.moments[int(self.rng.integers(len(self.moments)))]
        frame, info = self.env.reset(seed=moment.seed, options=options)
        over = False
        for action in moment.actions:
            if over:
                break
            frame, _, terminated, truncated, info = self.env.step(self.space.unflatten(action))
            over = terminated or truncated
        if over or not np.array_equal(frame, moment.frame):
            raise InputError(
                f"the environment does not repeat its recording: with seed {moment.seed} and the same "
                f"{len(moment.actions)} actions it comes to another frame, so that nothing real can begin where dreams "
                "do: go on with --agent.checks 0 and --no-control (improve.py: --improve.no-control)"
            )
        return frame, {**info, "start": moment.source}
