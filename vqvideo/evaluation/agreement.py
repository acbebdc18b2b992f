"""Where dreams and reality agree: on returns and lengths, along the steps, and on the ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vqvideo.evaluation import metrics
from vqvideo.evaluation.replay import Dreams, Outcomes

_SAME = 1e-6
"""Values this close to each other, relative to their size, differ by the rounding of float32 only."""


def agreement(real: Tensor, dream: Tensor, other: Tensor, trained: Tensor) -> dict[str, Any]:
    """One number of each of n episodes in reality and in the dream, which is the mean over its S dreams.

    Args:
        real: (n,).
        dream: (n, S), dreamt under the episode's own actions.
        other: (n, S), dreamt under the actions of another one.
        trained: (m,), of training episodes.

    Returns:
        real, dream, other_actions: of each episode.
        real_mean, real_se, dream_mean, dream_se: means, and standard errors over episodes.
        correlation: Pearson's, of real and dream; nan if either is constant.
        error: mean absolute difference of real and dream.
        error_other_actions: baseline: the same of `other`, which is blind to what was really done.
        error_training_mean: baseline: the same of the mean of the training episodes; nan if there are none.
    """
    dream, other = dream.mean(dim=1), other.mean(dim=1)
    return {
        "real": real.tolist(),
        "dream": dream.tolist(),
        "other_actions": other.tolist(),
        "real_mean": real.mean().item(),
        "real_se": _standard_error(real),
        "dream_mean": dream.mean().item(),
        "dream_se": _standard_error(dream),
        "correlation": correlation(real, dream),
        "error": (dream - real).abs().mean().item(),
        "error_other_actions": (other - real).abs().mean().item(),
        "error_training_mean": (trained.mean() - real).abs().mean().item(),
    }


def step_agreement(real: Outcomes, dreams: Dreams, trained: Outcomes) -> dict[str, list[float]]:
    """Figures per latent step, over episodes. Rewards are judged where the real episode was still alive when the step
    began; that of a dream is the mean over the dreams of the episode, with 0 for those that have ended.

    Returns:
        reward_rmse: root mean squared error of the reward of the step.
        reward_rmse_training_mean: baseline: predicting the mean of that step over the training episodes; nan if none
            lived that long.
        reward_correlation: Pearson's; nan if either side is constant.
        alive_real, alive_dream: share of episodes, and of dreams, that have not ended by the end of the step.
        ended_accuracy: balanced accuracy of "ended by now" in a dream: the mean of its accuracies for the real episodes
            that have ended and for those that have not; nan unless there are both.
        ended_brier: Brier score of the probability of having ended by now, 1 - prod (1 - p), the mean over the dreams
            of an episode.
        ended_brier_training_rate: baseline: predicting the share of training episodes that have ended by now; nan if
            there are none.
    """
    lived, ended = real.lived, dreams.outcomes.ended
    reward = dreams.outcomes.received.mean(dim=1)
    usual = _mean_where(trained.rewards, trained.lived)
    chance = (1 - (1 - dreams.termination).cumprod(dim=-1)).mean(dim=1)
    steps = zip(reward.T, real.rewards.T, lived.T, strict=True)
    return {
        "reward_rmse": _mean_where((reward - real.rewards).square(), lived).sqrt().tolist(),
        "reward_rmse_training_mean": _mean_where((usual - real.rewards).square(), lived).sqrt().tolist(),
        "reward_correlation": [correlation(dream[alive], true[alive]) for dream, true, alive in steps],
        "alive_real": (~real.ended).double().mean(dim=0).tolist(),
        "alive_dream": (~ended).double().mean(dim=(0, 1)).tolist(),
        "ended_accuracy": balanced_accuracy(ended, real.ended).tolist(),
        "ended_brier": _brier(chance, real.ended),
        "ended_brier_training_rate": _brier(trained.ended.double().mean(dim=0), real.ended),
    }


def end_agreement(real: Outcomes, dreams: Dreams) -> dict[str, float]:
    """The probability of ending in a step, pooled over dreams and over the steps that the real episode lived.

    Returns:
        average_precision, nan if no real episode ended; rate, the share of the steps in which it ended, which is the
        average precision that guessing would reach; calibration_error, the expected one.
    """
    lived, ended = (flags[:, None].expand_as(dreams.termination) for flags in (real.lived, real.ended))
    chance, label = dreams.termination[lived], ended[lived]
    return {
        "average_precision": metrics.average_precision(chance, label),
        "rate": label.double().mean().item(),
        "calibration_error": metrics.expected_calibration_error(chance, label),
    }


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's, of x (n,) and y (n,); nan if either is constant."""
    if not (_varies(x) and _varies(y)):
        return float("nan")
    return torch.corrcoef(torch.stack([x, y]))[0, 1].item()


def balanced_accuracy(dreams: Tensor, real: Tensor) -> Tensor:
    """Of flags of dreams (n, S, m) about those of the episodes (n, m): (m,), nan where the latter are all equal."""
    right = (dreams == real[:, None]).double().mean(dim=1)
    return (_mean_where(right, real) + _mean_where(right, ~real)) / 2


def _varies(x: Tensor) -> bool:
    return len(x) > 1 and bool(x.max() - x.min() > _SAME * x.abs().max())


def _standard_error(values: Tensor) -> float:
    return (values.std() / len(values) ** 0.5).item()


def _mean_where(values: Tensor, kept: Tensor) -> Tensor:
    """Mean over the episodes of the values (n, m) that are kept: (m,), nan where none is."""
    return values.where(kept, 0).sum(dim=0) / kept.sum(dim=0)


def _brier(chance: Tensor, ended: Tensor) -> list[float]:
    """Mean over the episodes of the squared error of probabilities (n, m) or (m,) of having ended (n, m)."""
    return (chance - ended.double()).square().mean(dim=0).tolist()
