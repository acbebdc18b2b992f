"""A batch of dreams that begin, go on and end row by row: what the imagined environments share, in tensors only."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import torch
from einops import repeat
from torch import Tensor

from vqvideo.errors import InputError, whole
from vqvideo.imagined_env.rows import Rows
from vqvideo.imagined_env.sights import Sight
from vqvideo.imagined_env.starts import Starts
from vqvideo.models.imagination import Imaginer, WorldState, WorldStep
from vqvideo.models.prior.sampling import Sampling
from vqvideo.models.rows import RowStreams


class DivergedError(InputError):
    """A dream came to figures that are not finite."""


RewardFunction: TypeAlias = Callable[[WorldStep], Tensor]
"""A reward (b,) made from what was imagined."""


class StepResult(NamedTuple):
    """One step of all rows."""

    reward: Tensor
    """(b,) float32."""
    terminated: Tensor
    """(b,) bool, drawn from the probability that the model gives."""
    truncated: Tensor
    """(b,) bool: the horizon is reached, or the step is cut, and the episode did not end by itself."""
    diverged: Tensor
    """(b,) bool: the reward, or a figure that the model gives, is not finite."""
    info: dict[str, Tensor]
    """What is seen beside the observation; `termination`, `entropy` and `outcome_entropy` (b,) as in `WorldStep`; and
    `cut` (b,) bool, if there are thresholds: whether a figure is above its own.
    """


class DreamBatch:
    """b dreams side by side.

    Each row has random numbers of its own, so that what it dreams does not depend on the rows beside it; only rounding
    differs between batches of different size.

    Args:
        world: the model; it is put into eval mode.
        starts: where episodes begin.
        rows: b.
        horizon: latent steps after which an episode is truncated; math.inf for none.
        sampling: how codes are drawn.
        reward: replaces the model's own reward.
        sight: what is seen of them.
        cut_above: figures of a step, as in `info`, above which an episode is truncated.
    """

    def __init__(
        self,
        world: Imaginer,
        starts: Starts,
        rows: int,
        horizon: float,
        sampling: Sampling,
        reward: RewardFunction | None,
        sight: Sight,
        cut_above: Mapping[str, float],
    ) -> None:
        self.world, self.starts, self.sight = world.eval(), starts, sight
        self.cut_above = cut_above
        self.horizon = horizon if horizon == math.inf else whole(horizon, "horizon")
        self.sampling, self.reward = sampling, _learnt_reward(world) if reward is None else _checked(reward)
        self.random = RowStreams(rows, world.device)
        self.steps = torch.zeros(rows, dtype=torch.int64, device=world.device)
        """(b,): latent steps since each row began."""
        first = sight.first(starts)
        self.newest = first.new_zeros((rows, *first.shape[1:]))
        """(b, ...): the newest observation of each row."""
        self._state: WorldState | None = None

    @property
    def begun(self) -> bool:
        """Whether there is anything to go on with."""
        return self._state is not None

    def begin(self, rows: Rows, starts: Starts | None = None) -> Tensor:
        """Begins rows anew: from `starts`, one for each of them in order, or at random from the usual ones.

        Returns:
            (b,): the `source` of each start; meaningless in other rows.
        """
        self.random.begin_event(rows.mask)
        index = (self.random.uniform((len(rows.mask),)) * len(self.starts)).long()
        # Of float32, where a device has no float64, the largest number below 1 can round up to all of them.
        index = index.clamp(max=len(self.starts) - 1)
        numbers = rows.numbers()
        starts = self.starts.rows(index[numbers]) if starts is None else starts
        self._state = starts.state if self._state is None else self._state.with_rows(numbers, starts.state)
        self.newest = self.newest.index_copy(0, numbers, self.sight.first(starts))
        self.steps = self.steps.masked_fill(rows.mask, 0)
        return index.index_copy(0, numbers, starts.source)

    def forget(self) -> None:
        """Before all rows begin anew: the clock is at 0 again, so that the same episodes follow bit by bit."""
        self._state = None

    def tick(self) -> None:
        """A step before which all rows have ended: nothing is imagined, but the clock goes on. It must not depend on
        other rows, because it shows in the rounding.
        """
        assert self._state is not None
        self._state = self._state.ticked()

    def step(self, actions: Tensor, going: Rows) -> StepResult:
        """Imagines a step under the flat actions (b, a) float32, held for its s frames. Rows that are not `going` are
        imagined too, but their random numbers do not move on: they are about to begin anew.
        """
        assert self._state is not None
        self.random.begin_event(going.mask)
        drawn = self.random.uniform((len(actions),))
        held = repeat(actions, "b a -> b s a", s=self.world.stride)
        step, self._state, self.newest, seen = self.sight.advance(self._state, held, self.sampling, self.random)
        self.steps = self.steps + going.mask
        terminated = drawn < step.termination
        info = {**seen, **_figures(step)}
        truncated = (self.steps >= self.horizon) & ~terminated
        if self.cut_above:
            info["cut"] = _any_above(info, self.cut_above) & ~terminated
            truncated |= info["cut"]
        reward = self.reward(step)
        # The model's own reward is a mean of bins inside the recorded range: it can be NaN, but not too large.
        figures = torch.stack([reward, step.reward, step.termination, step.entropy])
        return StepResult(reward, terminated, truncated, ~figures.isfinite().all(dim=0), info)

    def divergence(self, result: StepResult, row: int) -> DivergedError:
        """What to say of a row that diverged in a step."""
        figures = {"reward": result.reward} | {name: result.info[name] for name in ("termination", "entropy")}
        listed = ", ".join(f"{name} {float(values[row]):g}" for name, values in figures.items())
        return DivergedError(
            f"the dream of env {row} diverged in step {int(self.steps[row])} of its episode: {listed}, expected finite "
            "numbers; what came before is sound, and reset begins anew. Look at what your own reward function returns, "
            "if there is one; take the world in single precision (world.float()); or train its prior again, with a "
            "smaller --prior.train.learning-rate"
        )


def _figures(step: WorldStep) -> dict[str, Tensor]:
    """What the model says of how sure it is."""
    told = {"entropy": step.entropy, "termination": step.termination}
    return told if step.outcome_entropy is None else {**told, "outcome_entropy": step.outcome_entropy}


def _any_above(info: Mapping[str, Tensor], thresholds: Mapping[str, float]) -> Tensor:
    """Rows (b,) bool where a figure is above its threshold."""
    if unknown := [name for name in thresholds if name not in info]:
        raise InputError(f"cut_above names {unknown[0]}, which an exported world does not tell: take entropy alone")
    return torch.stack([info[name] > threshold for name, threshold in thresholds.items()]).any(dim=0)


def no_reward(step: WorldStep) -> Tensor:
    """0 for every step: for worlds that were trained without rewards and are only watched or explored."""
    return torch.zeros_like(step.reward)


def _checked(reward: RewardFunction) -> RewardFunction:
    """The same reward, in the type and on the device of the model's own; InputError if it is not one for each row."""
    if not callable(reward):
        raise InputError(
            f"reward is {reward!r:.100}, expected a function of a WorldStep that returns (b,), such as "
            "lambda step: step.reward - 0.01"
        )

    def checked(step: WorldStep) -> Tensor:
        values = torch.as_tensor(reward(step)).to(step.reward)
        if values.shape != step.reward.shape:
            raise InputError(
                f"reward gave shape {tuple(values.shape)}, expected {tuple(step.reward.shape)}: one number for each env"
            )
        return values

    return checked


def _learnt_reward(world: Imaginer) -> RewardFunction:
    """The model's own reward; warns once if it has never seen one other than 0."""
    if world.prior.spec.stats.unrewarded:
        warnings.warn(
            "every reward is 0 in the episodes that this world was trained on, and so in its dreams. Record an "
            "environment that rewards, or give the env a reward of your own: reward=function of a WorldStep, returning "
            "(b,); reward=vqvideo.imagined_env.no_reward pays 0 without this warning",
            stacklevel=4,  # who makes the environment
        )
    return lambda step: step.reward
