"""How well an agent plays: returns of whole episodes, with a confidence interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from vqvideo.evaluation.tables import table

Act = Callable[[Any], Any]
"""Actions (b, ...) for a batch of b observations, such as frames (h, w, 3) or codes (h, w)."""
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Returns:
    """Whole episodes of one agent."""

    returns: tuple[float, ...]
    """Sum of the rewards of each."""
    lengths: tuple[int, ...]
    """Steps of each."""

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the mean: percentiles of 10,000 bootstrap resamples of the episodes (Efron 1979),
        seed 0.
        """
        values = np.asarray(self.returns)
        picks = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
        low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
        return float(low), float(high)

    def to_json(self) -> dict[str, Any]:
        """Figures by name."""
        low, high = self.interval
        return {
            "episodes": len(self.returns),
            "mean_return": self.mean,
            "low_95": low,
            "high_95": high,
            "mean_length": float(np.mean(self.lengths)),
        }


def share_of_gain(mean: float, reference: float, random: float) -> float:
    """How much of a reference's gain over random actions an agent gains: 0 for one that is no better than random, 1 for
    one as good as the reference (the normalised score of Mnih et al. 2015).
    """
    return (mean - random) / (reference - random)


def dream_and_game_table(checks: Iterable[Mapping[str, Any]]) -> str:
    """What an agent's dreams promise beside what the real environment gives, while it learns.

    Args:
        checks: at so many `steps` the JSON of `Returns` in the `dream` and in the `game`.
    """
    heads = ("imagined steps", "return in the dream", "in the game")
    return table(heads, ((f"{c['steps']:,}", *(" ".join(cells(c[w])[:2]) for w in ("dream", "game"))) for c in checks))


HEADS = ("return", "95 % interval", "length")


def cells(figures: Mapping[str, Any]) -> tuple[str, ...]:
    """The JSON of `Returns` under `HEADS`."""
    low, high = figures["low_95"], figures["high_95"]
    return (f"{figures['mean_return']:.2f}", f"[{low:.2f}, {high:.2f}]", f"{figures['mean_length']:.1f}")


def play_episodes(envs: Sequence[Any], act: Act, episodes: int, seed: int, longest: int = 1000) -> Returns:
    """Plays whole episodes; episode i is reset with seed + i.

    Args:
        envs: Gymnasium envs in which the episodes go on side by side; what they observe goes to `act` as one batch.
        act: the agent.
        episodes: how many.
        seed: of the first.
        longest: steps after which an episode is cut.
    """
    totals, lengths = np.zeros(episodes), np.zeros(episodes, int)
    waiting = iter(range(episodes))
    playing = [[env, index, env.reset(seed=seed + index)[0]] for env, index in zip(envs, waiting, strict=False)]
    while playing:
        # Copies: some environments draw every frame into the same array.
        actions = act([deepcopy(observation) for *_, observation in playing])
        for place, action in zip(playing, actions, strict=True):
            env, index, _ = place
            place[2], reward, terminated, truncated, _ = env.step(action)
            totals[index] += float(reward)
            lengths[index] += 1
            if terminated or truncated or lengths[index] == longest:
                place[1] = next(waiting, None)
                if place[1] is not None:
                    place[2] = env.reset(seed=seed + place[1])[0]
        playing = [place for place in playing if place[1] is not None]
    return Returns(tuple(totals.tolist()), tuple(lengths.tolist()))


def play_side_by_side(envs: Any, act: Act, seed: int) -> Returns:
    """Plays one episode in each env of a `VecEnv` of Stable-Baselines3.

    Args:
        envs: whose env i is reset with seed + i.
        act: the agent.
        seed: of the first.
    """
    envs.seed(seed)
    observations = envs.reset()
    totals, lengths, going = np.zeros(envs.num_envs), np.zeros(envs.num_envs, int), np.ones(envs.num_envs, bool)
    while going.any():
        observations, rewards, dones, _ = envs.step(act(observations))
        totals += rewards * going
        lengths += going
        going &= ~dones
    return Returns(tuple(totals.tolist()), tuple(lengths.tolist()))
