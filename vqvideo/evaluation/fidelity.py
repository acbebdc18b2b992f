"""How faithful dreams are: returns, lengths, rewards and ends in the dream beside those of the real environment."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

from vqvideo.data.store import Store
from vqvideo.errors import InputError, at_least
from vqvideo.evaluation.agreement import agreement, end_agreement, step_agreement
from vqvideo.evaluation.replay import Replay, dream_again
from vqvideo.evaluation.tables import cell, step_table, table
from vqvideo.models.imagination import Imaginer
from vqvideo.models.prior import Sampling
from vqvideo.storage.records import without_nan

_TRAINING_EPISODES = 64
"""Training episodes that the baselines are taken of."""
_HEADS = ("", "real", "dream", "correlation", "error", "error of training mean", "error under other actions")
_STEPS = {
    "reward RMSE": ("reward_rmse", ".3f"),
    "training mean": ("reward_rmse_training_mean", ".3f"),
    "correlation": ("reward_correlation", ".2f"),
    "alive, real": ("alive_real", ".1%"),
    "alive, dream": ("alive_dream", ".1%"),
    "ended: accuracy": ("ended_accuracy", ".1%"),
    "Brier": ("ended_brier", ".4f"),
    "training rate": ("ended_brier_training_rate", ".4f"),
}
"""Heads of the table per step: names of `step_agreement`, and how to write them."""


@dataclass(frozen=True)
class FidelityReport:
    """Dreams beside what really happened under the same actions."""

    split: str
    """Of the episodes."""
    episodes: int
    """How many were played again."""
    episodes_cut: int
    """Left out: the recording cut them before the horizon."""
    episodes_too_short: int
    """Left out: nothing happened after the context."""
    training_episodes: int
    """That the baselines are taken of."""
    samples: int
    """Dreams of each episode."""
    context: int
    """Latent steps that the model sees."""
    horizon: int
    """Latent steps that it dreams."""
    seed: int
    """Of the dreams, their ends and lent actions."""
    returns: dict[str, Any]
    """Sums of rewards over the horizon, up to the end: see `agreement`."""
    lengths: dict[str, Any]
    """Latent steps up to the end, at most the horizon: see `agreement`."""
    steps: dict[str, list[float]]
    """Rewards and ends along the horizon: see `step_agreement`."""
    ends: dict[str, float]
    """The probability of ending, over all steps: see `end_agreement`."""

    def to_json(self) -> dict[str, Any]:
        """All figures as JSON values, None for what is not a number."""
        return without_nan(asdict(self))

    def table(self) -> str:
        """Settings, returns and lengths, figures per latent step, terminations."""
        setting = (
            f"split {self.split}: {self.episodes} episodes, {self.samples} dream(s) of each, context {self.context} "
            f"and horizon {self.horizon} latent steps, seed {self.seed}\n"
            f"left out: {self.episodes_cut} episode(s) that the recording cut before the horizon, "
            f"{self.episodes_too_short} with nothing after the context; baselines from {self.training_episodes} "
            "training episodes"
        )
        whole = "returns and lengths in latent steps: means ± standard errors, mean absolute errors per episode\n"
        whole += table(_HEADS, [_row("return", self.returns), _row("length", self.lengths)])
        along = "per latent step: rewards where the real episode was alive, and whether the episode has ended by then\n"
        along += step_table({head: (self.steps[name], form) for head, (name, form) in _STEPS.items()})
        precision, rate, error = self.ends.values()
        ends = (
            f"probability of ending in a step: average precision {cell(precision, '.3f')} "
            f"(guessing {cell(rate, '.3f')}), calibration error {cell(error, '.4f')}"
        )
        return "\n\n".join([setting, whole, along, ends])


def _row(name: str, found: dict[str, Any]) -> list[str]:
    means = (f"{found[f'{of}_mean']:.2f} ± {found[f'{of}_se']:.2f}" for of in ("real", "dream"))
    errors = ("correlation", "error", "error_training_mean", "error_other_actions")
    return [name, *means, *(cell(found[error], ".2f") for error in errors)]


def _require_actions(world: Imaginer) -> None:
    if not world.action_space.size:
        raise InputError(
            f"the world of {world.env.env_id} has no actions, under which episodes could be played again: measure its "
            "frames with python scripts/evaluate_world.py"
        )


def evaluate_fidelity(
    world: Imaginer,
    store: Store,
    *,
    horizon: int,
    context: int,
    episodes: int = 64,
    samples: int = 4,
    sampling: Sampling | None = None,
    seed: int = 0,
    batch: int = 64,
) -> FidelityReport:
    """Plays held-out episodes again in dreams, from their first frames and under their own actions.

    A dream ends by a draw from its probability of ending; what follows counts no more. Memory grows with the number of
    dreams and steps by a few scalars each, and with nothing else.

    Args:
        world: the model.
        store: recorded episodes of the same environment; those of split train give the baselines.
        horizon: latent steps to dream.
        context: latent steps that the model sees, 1 + s (context - 1) frames.
        episodes: held-out episodes at most, spread over the split.
        samples: dreams of each episode, all under the same actions.
        sampling: how codes are drawn.
        seed: of codes, ends, and the actions lent to episodes that ended before the horizon.
        batch: dreams at once.

    Raises:
        InputError: a store of another action space or frame size, fewer than two episodes that long, or a world without
            actions.
    """
    counts = SimpleNamespace(horizon=horizon, context=context, samples=samples, batch=batch)
    at_least(counts, "", horizon=1, context=1, samples=1, batch=1)
    if episodes < 2:
        raise InputError(f"episodes is {episodes}, expected at least 2: they lend each other their actions")
    _require_actions(world)
    store.require(world.action_space, world.vqvae.frame_size)
    window = {"seen": world.vqvae.clip_length(context), "stride": world.stride, "horizon": horizon}
    replay = Replay(store, "held_out", episodes, **window)
    replay.require(2)
    training = Replay(store, "train", _TRAINING_EPISODES, **window)
    real, trained = replay.outcomes(), training.outcomes()
    dreams, other = dream_again(world, replay, samples, sampling or world.sampling, seed, batch)
    played = (real, dreams.outcomes, other.outcomes, trained)
    return FidelityReport(
        split=replay.split,
        episodes=len(replay.entries),
        episodes_cut=replay.cut,
        episodes_too_short=replay.too_short,
        training_episodes=len(training.entries),
        samples=samples,
        context=context,
        horizon=horizon,
        seed=seed,
        returns=agreement(*(outcomes.returns for outcomes in played)),
        lengths=agreement(*(outcomes.lengths for outcomes in played)),
        steps=step_agreement(real, dreams, trained),
        ends=end_agreement(real, dreams),
    )
