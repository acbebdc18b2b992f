"""What of an agent's training outlives the process: checkpoints, from which the same call goes on, and how well the
agent did on the way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vqvideo.agents.agent import Agent, load_policy, policy_tensors
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
        judge: plays with the agent, and gives figures as plain JSON.
        checks: how often it does so, evenly spread from the beginning to the end; once is at the end.
    """

    def __init__(
        self, folder: Path | None = None, judge: Callable[[Agent], dict[str, Any]] | None = None, checks: int = 0
    ) -> None:
        self.folder, self.seconds = folder, 0.0
        self.checks: list[dict[str, Any]] = []
        """The judge's figures so far, each with its `steps`."""
        self._judge, self._count = judge, checks
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
            self.seconds, self.checks = state.progress["seconds"], state.progress["checks"]
            log.info("going on from step %d, saved in %s", state.progress["step"], self.folder)
        return state

    def restore(self, ppo: PPO, state: TrainingState) -> None:
        """Puts fresh PPO where a checkpoint left it."""
        assert self.folder is not None
        load_policy(ppo.policy, state.model, self.folder)
        load_optimizer(ppo.policy, ppo.policy.optimizer, state.optimizer)
        ppo.num_timesteps = state.progress["step"]

    def check(self, agent: Agent, step: int, steps: int) -> None:
        """Has the agent judged after `step` of `steps`, if it is time for that. The training does not notice: random
        numbers go on as if nothing had happened.
        """
        parts, last = self._count - 1, self.checks[-1]["steps"] if self.checks else -1
        due = (steps * i // parts if parts else steps for i in range(self._count))
        if self._judge is not None and any(last < one <= step for one in due):
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.checks.append({"steps": step, **self._judge(agent)})

    def save(self, ppo: PPO, *, now: bool = False) -> None:
        """Writes a checkpoint between two updates, if it is time for one, or `now`."""
        moment = time.monotonic()
        self.seconds, self._began = self.seconds + moment - self._began, moment
        if self.folder is None or not (now or moment - self._saved >= SECONDS):
            return
        files.make_folder(self.folder)
        step, optimizer = ppo.num_timesteps, optimizer_tensors(ppo.policy, ppo.policy.optimizer)
        progress = {"step": step, "identity": self._identity, "seconds": self.seconds, "checks": self.checks}
        save_training(self.folder, step, TrainingState(policy_tensors(ppo.policy), optimizer, {}, progress), keep=2)
        self._saved = time.monotonic()

    def forget(self) -> None:
        """Removes the checkpoints."""
        if self.folder is not None and self.folder.is_dir():
            files.remove_folder(self.folder)
