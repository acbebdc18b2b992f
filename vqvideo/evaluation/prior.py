"""Held-out figures of a prior, teacher-forced."""

from __future__ import annotations

from math import log

import torch
from torch.utils.data import DataLoader, Subset

from vqvideo import metrics
from vqvideo.data.codes import CodeClips
from vqvideo.prior import Prior


@torch.no_grad()
def evaluate_prior(prior: Prior, clips: CodeClips, count: int, batch: int = 16) -> dict[str, float]:
    """Held-out figures of a prior, teacher-forced, over `count` evenly spread clips of codes.

    Returns:
        token_nats (cross-entropy per token), bits_per_frame, top1, reward_rmse beside reward_rmse_of_mean (predicting
        the mean reward: the standard deviation), termination_ap beside termination_rate (what guessing would reach;
        the former nan without any termination).
    """
    device = prior.device
    picks = torch.linspace(0, len(clips) - 1, min(count, len(clips))).round().long().tolist()
    sums = dict.fromkeys(("token_nats", "top1"), 0.0)
    rewards, predicted, ends, scores = [], [], [], []
    for part in DataLoader(Subset(clips, picks), batch_size=batch):
        output = prior(**{key: value.to(device) for key, value in part.items()})
        for key in sums:
            sums[key] += output.metrics[key].item() * len(part["codes"]) / len(picks)
        rewards.append(part["rewards"].flatten())
        predicted.append(output.reward.cpu().flatten())
        ends.append(part["terminated"].flatten())
        scores.append(output.termination.cpu().flatten())
    reward, end = torch.cat(rewards), torch.cat(ends)
    return {
        **sums,
        "bits_per_frame": sums["token_nats"] / log(2) * prior.spec.tokens / prior.spec.stride,
        "reward_rmse": (torch.cat(predicted) - reward).square().mean().sqrt().item(),
        "reward_rmse_of_mean": (reward - reward.mean()).square().mean().sqrt().item(),
        "termination_ap": metrics.average_precision(torch.cat(scores), end),
        "termination_rate": end.double().mean().item(),
    }
