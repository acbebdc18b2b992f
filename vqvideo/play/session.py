"""One player's dream, and the real environment beside it under the same actions."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqvideo.data.clips import StartClips
from vqvideo.errors import InputError
from vqvideo.models.imagination import Imaginer, WorldState
from vqvideo.models.pixels import channels_first, channels_last
from vqvideo.models.rows import RowStreams
from vqvideo.play.game import Game
from vqvideo.play.messages import Start, Step


class Answer(NamedTuple):
    """What the page gets to see."""

    fields: dict[str, Any]
    """All but the frames."""
    frames: NDArray[np.uint8]
    """(n, h, w, 3): of the dream."""
    real: NDArray[np.uint8] | None = None
    """(n, h, w, 3): of the real environment; None where there is none beside this dream."""


class Session:
    """Dreams, one after the other, under a player's actions. One thread at a time calls it.

    With a real game the first start is the game's own: it is reset with the seed of the dream and idles for as long as
    the context of a dream lasts, and the dream goes on from what it showed. The other starts are those of the clips:
    what happened there cannot be repeated under other actions, so nothing is beside them.

    Args:
        world: the model, in eval mode.
        clips: to begin from, at least as long as the context.
        context: latent steps that a dream has seen when it begins.
        game: the real environment, which is closed with the session.
    """

    def __init__(self, world: Imaginer, clips: StartClips, context: int, game: Game | None = None) -> None:
        self.world, self.clips, self.game = world, clips, game
        self.length = world.vqvae.clip_length(context)
        self._random = RowStreams(1, world.device)
        self._state: WorldState | None = None
        self._dream = self._step = 0
        self._beside: Game | None = None
        """The game, if it is beside this dream."""

    def close(self) -> None:
        """Ends the game; what was played in it is kept."""
        if self.game is not None:
            self.game.close()

    @torch.inference_mode()
    def start(self, message: Start) -> Answer:
        """Begins a dream; the one before ends.

        Raises:
            InputError: no such start, or a game that cannot be played.
        """
        own = int(self.game is not None)
        if not 0 <= message.start < own + len(self.clips.frames):
            raise InputError(f"start {message.start}, expected 0 to {own + len(self.clips.frames) - 1}")
        self._state, self._beside = None, None
        if self.game is not None:
            self.game.leave()
        if self.game is not None and message.start == 0:
            frames, actions = self._begin_game(self.game, message.seed)
            self._beside = self.game
        else:
            clip = [message.start - own]
            frames, actions = self.clips.frames[clip, : self.length], self.clips.actions[clip, : self.length - 1]
        self._state, newest = self.world.begin(frames, actions)
        self._random.seed(torch.tensor([0]), torch.tensor([message.seed]))
        self._dream, self._step = message.dream, 0
        answer = Answer({"type": "started", "dream": message.dream, "count": 1}, channels_last(newest).cpu().numpy())
        return answer._replace(real=channels_last(frames[0, -1:]).numpy()) if self._beside else answer

    @torch.inference_mode()
    def step(self, message: Step) -> Answer:
        """Goes on by one latent step.

        Raises:
            InputError: another dream or step than the one that is next, or actions outside of their space. Nothing has
                happened then.
        """
        began = time.perf_counter()
        state, actions = self._checked(message)
        # The game runs in its own process: it plays while the dream is computed.
        if self._beside is not None:
            self._beside.begin_step(actions[0].double().cpu().numpy())
        self._random.begin_event(torch.ones(1, dtype=torch.bool, device=self.world.device))
        step, self._state = self.world.advance(state, actions, message.sampling, self._random)
        self._step += 1
        fields = {"type": "step", "dream": self._dream, "step": self._step, "count": self.world.stride}
        for name in ("reward", "termination", "entropy"):
            fields[name] = float(getattr(step, name))
        real = self._finish_game(fields)
        fields["ms"] = 1000 * (time.perf_counter() - began)
        return Answer(fields, channels_last(step.frames[0]).cpu().numpy(), real)

    def _checked(self, message: Step) -> tuple[WorldState, Tensor]:
        """The state of the dream, and the actions (1, s, a) of what is its next step."""
        if self._state is None or (message.dream, message.step) != (self._dream, self._step + 1):
            raise InputError(
                f"step {message.step} of dream {message.dream}, expected step {self._step + 1} of dream {self._dream}: "
                "start a dream first, and wait for each answer"
            )
        stride, size = self.world.stride, self.world.action_space.size
        if [len(action) for action in message.actions] != [size] * stride:
            raise InputError(f"actions: expected {stride} of {size} numbers, one for each frame")
        self.world.prior.cfg.check_sampling(message.sampling, size)
        given = np.array(message.actions).reshape(1, stride, size)
        return self._state, self.world.checked_actions(given)

    def _begin_game(self, game: Game, seed: int) -> tuple[Tensor, Tensor]:
        """Resets the game, which idles; the context as frames (1, t, 3, h, w) and actions (1, t - 1, a)."""
        idle = [min(max(0.0, column.low), column.high) for column in self.world.action_space.columns]
        actions = np.tile(idle, (self.length - 1, 1))
        # Some environments refuse larger seeds.
        frames = game.begin(seed % 2**31, actions)
        return channels_first(torch.from_numpy(frames[None])), torch.from_numpy(actions[None])

    def _finish_game(self, fields: dict[str, Any]) -> NDArray[np.uint8] | None:
        """Waits for the game, says in the fields what happened, and gives its frames."""
        if self._beside is None:
            return None
        try:
            step = self._beside.finish()
        except InputError as error:
            # The dream goes on alone.
            self._beside, fields["real_error"] = None, str(error)
            return None
        fields |= {"real_reward": sum(step.rewards), "real_ended": self._beside.over}
        if step.terminated or step.truncated:
            fields["real_end"] = "terminated" if step.terminated else "truncated"
        return step.frames
