"""What of an agent's training outlives the process: checkpoints, from which the same call goes on."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vqvideo.agents.agent import load_policy, policy_tensors
from vqvideo.storage import files
from vqvideo.storage.checkpoint import (
    TrainingState,
    latest_training,
    load_optimizer,
    optimizer_tensors,
    save_training,
)

if TYPE_CHECKING:
    from stable_baselines3 import PPO

log = logging.getLogger(__name__)

SECONDS = 30.0
"""Between two checkpoints."""


class AgentRun:
    """One training of an agent, which may take several calls.

    Weights, moments of the optimizer and steps go on where the newest checkpoint left them; dreams begin anew, with
    other random numbers. A checkpoint of another training, by its settings or what it learns from, is removed.

    Args:
        folder: of the checkpoints; None keeps none. Whoever saves what was learnt calls `forget` then.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder, self.seconds = folder, 0.0
        self._identity = ""
        self._began = self._saved = time.monotonic()

    def newest(self, identity: str) -> TrainingState | None:
        """Where the training goes on, or None to begin.

        Args:
            identity: of what is learnt, from what and how.

        Raises:
            InputError: there are checkpoints, and every one is damaged.
        """
        self._identity = identity
        if self.folder is None or not self.folder.is_dir():
            return None
        files.clean_temporaries(self.folder)
        state = latest_training(self.folder)
        if state is not None and state.progress["identity"] != identity:
            log.warning("%s: of a training with other settings or another world: beginning anew", self.folder)
            self.forget()
            return None
        if state is not None:
            self.seconds = state.progress["seconds"]
            log.info("going on from step %d, saved in %s", state.progress["step"], self.folder)
        return state

    def restore(self, ppo: PPO, state: TrainingState) -> None:
        """Puts fresh PPO where a checkpoint left it."""
        assert self.folder is not None
        load_policy(ppo.policy, state.model, self.folder)
        load_optimizer(ppo.policy, ppo.policy.optimizer, state.optimizer)
        ppo.num_timesteps = state.progress["step"]

    def save(self, ppo: PPO, *, now: bool = False) -> None:
        """Writes a checkpoint between two updates, if it is time for one, or `now`."""
        moment = time.monotonic()
        self.seconds, self._began = self.seconds + moment - self._began, moment
        if self.folder is None or not (now or moment - self._saved >= SECONDS):
            return
        files.make_folder(self.folder)
        optimizer = optimizer_tensors(ppo.policy, ppo.policy.optimizer)
        progress = {"step": ppo.num_timesteps, "identity": self._identity, "seconds": self.seconds}
        state = TrainingState(policy_tensors(ppo.policy), optimizer, {}, progress)
        save_training(self.folder, ppo.num_timesteps, state, keep=2)
        self._saved = time.monotonic()

    def forget(self) -> None:
        """Removes the checkpoints."""
        if self.folder is not None and self.folder.is_dir():
            files.remove_folder(self.folder)
