"""Held-out figures of a prior, teacher-forced."""

from __future__ import annotations

import torch

from vqvideo.data.codes import CodeClips
from vqvideo.evaluation import metrics
from vqvideo.evaluation.likelihood import batches_of, code_bits
from vqvideo.models.prior import Prior


@torch.no_grad()
def evaluate_prior(
    prior: Prior, clips: CodeClips, count: int, batch: int = 16, frame_size: tuple[int, int] | None = None
) -> dict[str, float]:
    """Held-out figures of a prior, teacher-forced, over `count` evenly spread clips of codes. What is drawn, such as
    the tokens that a masked head must fill in, is the same at every call.

    Args:
        prior: the prior.
        clips: held-out clips of codes.
        count: how many of them.
        batch: clips at once.
        frame_size: height and width of the tokenizer's frames, for bits_per_dim.

    Returns:
        token_nats (what training minimises, per token) and top1; bits_per_frame of the codes and, with `frame_size`,
        bits_per_dim, the same per channel of a pixel: the rate of the codes alone, since the tokenizer's losses are not
        coded (whether it is exact or a bound: `likelihood_kind`).

        reward_rmse beside reward_rmse_of_mean (predicting the mean reward: the standard deviation), reward_bias
        (predicted minus real) and reward_slope (of real on predicted, 1 is calibrated).

        Rewards and terminations are weighted as in training, so that each step of the episodes counts alike:
        termination_ap beside termination_rate (what guessing would reach; the former nan without any termination) and
        termination_ece, the calibration error of the probabilities.
    """
    device = prior.device
    picks = metrics.evenly(len(clips), count)
    sums = dict.fromkeys(("token_nats", "top1"), 0.0)
    rewards, predicted, ends, scores, counted = [], [], [], [], []
    generator = torch.Generator(device).manual_seed(0)
    for part in batches_of(clips, picks, batch):
        output = prior(**{key: value.to(device) for key, value in part.items()}, generator=generator)
        for key in sums:
            sums[key] += output.metrics[key].item() * len(part["codes"]) / len(picks)
        rewards.append(part["rewards"].flatten())
        predicted.append(output.reward.cpu().flatten())
        ends.append(part["terminated"].flatten())
        scores.append(output.termination.cpu().flatten())
        counted.append(part["weights"].flatten())
    reward, expected = torch.cat(rewards).double(), torch.cat(predicted).double()
    end, score = torch.cat(ends), torch.cat(scores)
    share = torch.cat(counted).double()
    share /= share.sum()
    bits, _ = code_bits(prior, clips, picks, batch)
    per_dim = {"bits_per_dim": bits / (3 * frame_size[0] * frame_size[1])} if frame_size else {}
    return {
        **sums,
        "bits_per_frame": bits,
        **per_dim,
        "reward_rmse": ((expected - reward).square() @ share).sqrt().item(),
        "reward_rmse_of_mean": ((reward - reward @ share).square() @ share).sqrt().item(),
        "reward_bias": ((expected - reward) @ share).item(),
        "reward_slope": metrics.calibration_slope(expected, reward, share),
        "termination_ap": metrics.average_precision(score, end, share),
        "termination_rate": (end.double() @ share).item(),
        "termination_ece": metrics.expected_calibration_error(score.sigmoid(), end, share),
    }


def likelihood_kind(prior: Prior, clips: CodeClips) -> str:
    """exact or bound: what the bits of `evaluate_prior` are, whose figures are numbers only."""
    return code_bits(prior, clips, [0])[1]
