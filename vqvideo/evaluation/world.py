"""Held-out figures of a world model per imagined step: it dreams on from held-out clips, beside what happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor

from vqvideo.data.clips import Clips
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.evaluation import metrics
from vqvideo.evaluation.frame_sets import FrameSets, FrechetConfig, lite0_missing
from vqvideo.evaluation.horizon import Compared, HorizonReport
from vqvideo.evaluation.prior import step_likelihood, step_rewards
from vqvideo.models.imagination import Imagination, Imaginer
from vqvideo.models.pixels import to_uint8, to_unit
from vqvideo.models.prior import Sampling
from vqvideo.models.tokenizer.vqvae import VQVAE

BATCH = 16
"""Clips dreamt at once."""
_STEPS = 2
"""Latent steps that are floats at once: so few stay in the processor's cache."""
_THROUGH = 8
"""Latent steps that pass the tokenizer at once."""
_REWARD_EPISODES = 64
"""Training episodes that the mean reward is taken of."""

Rows = dict[tuple[str, str], Tensor]
"""Figures (b, m) float64 of each clip and latent step, by figure and by what it is of, as in `Compared`."""


class Scene(NamedTuple):
    """A batch of held-out clips of c context and m further latent steps."""

    frames: Tensor
    """(b, t, c, h, w) uint8."""
    actions: Tensor
    """(b, t - 1, a)."""
    rewards: Tensor
    """(b, c - 1 + m), summed over the frames of each latent step."""
    seen: int
    """Frames of context."""

    @classmethod
    def read(cls, world: Imaginer, clips: Clips, indices: list[int], context: int) -> Scene:
        """Chosen clips, on the device of the model."""
        taken = [clips[i] for i in indices]
        frames, actions, rewards = (
            torch.stack([clip[key] for clip in taken]).to(world.device) for key in ("frames", "actions", "rewards")
        )
        summed = reduce(rewards, "b (t s) -> b t", "sum", s=world.stride)
        return cls(frames, actions, summed, world.vqvae.clip_length(context))

    @property
    def real(self) -> Tensor:
        """(b, 1 + s m, c, h, w): the last context frame, and what followed."""
        return self.frames[:, self.seen - 1 :]

    @property
    def lent(self) -> Tensor:
        """The actions with those after the context from the clip before."""
        known = self.seen - 1
        return torch.cat([self.actions[:, :known], self.actions.roll(1, dims=0)[:, known:]], dim=1)

    def grouped(self, actions: Tensor) -> Tensor:
        """Actions (b, t - 1, a) by latent step: (b, c - 1 + m, s, a)."""
        return rearrange(actions, "b (t s) a -> b t s a", t=self.rewards.shape[1])

    def dreams(self, world: Imaginer, sampling: Sampling, seed: int) -> dict[str, Imagination]:
        """What follows under the true actions; under those of another clip, if there are actions; and, if the prior
        can, under none.
        """
        start, blind = self.frames[:, : self.seen], replace(sampling, guidance=0.0)
        dreams = {"imagined": world.imagine(start, self.actions, sampling=sampling, seed=seed)}
        if world.action_space.size:
            dreams["other_actions"] = world.imagine(start, self.lent, sampling=sampling, seed=seed)
        if world.prior.can_guide:
            dreams["no_actions"] = world.imagine(start, self.actions, sampling=blind, seed=seed)
        return dreams


def through_tokenizer(vqvae: VQVAE, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (b, 1 + k, h, w) and reconstruction (uint8) of long clips (b, 1 + s k, c, h, w), a few steps at a time."""
    reading = writing = vqvae.init_state(len(frames))
    codes, rebuilt = [], []
    later = frames[:, 1:].split(_THROUGH * vqvae.stride, dim=1) if frames.shape[1] > 1 else ()
    for part in (frames[:, :1], *later):
        code, reading = vqvae.encode_step(part, reading)
        video, writing = vqvae.decode_step(code, writing)
        codes.append(code)
        rebuilt.append(to_uint8(video[:, -part.shape[1] :]))
    return torch.cat(codes, dim=1), torch.cat(rebuilt, dim=1)


@torch.no_grad()
def evaluate_world(
    world: Imaginer,
    clips: Clips,
    count: int,
    context: int,
    sampling: Sampling,
    seed: int,
    batch: int = BATCH,
    frechet: FrechetConfig | None = None,
) -> HorizonReport:
    """Dreams on from the first `context` latent steps of held-out clips and compares with what happened.

    Memory grows with the horizon by the uint8 frames of one batch only.

    Args:
        world: the model.
        clips: held-out clips of 1 + s (context - 1 + horizon) frames.
        count: how many of them, spread over the episodes; at least 2 if there are actions, which clips lend each
            other.
        context: latent steps that the model sees.
        sampling: how codes are drawn.
        seed: of the dreams; the dreams under true, other and no actions use the same one.
        batch: clips dreamt at once.
        frechet: also measure Fréchet distances, where EfficientNet-Lite0 is installed.
    """
    indices = torch.as_tensor(clips.spread(count))
    if world.action_space.size and len(indices) < 2:
        raise InputError(f"{len(indices)} held-out clip(s), expected at least 2 to compare actions: record more")
    missing = lite0_missing() if frechet else None
    sets = None
    if frechet and not missing:
        steps = (clips.length - world.vqvae.clip_length(context)) // world.stride
        sets = FrameSets(frechet, len(indices), steps, world.stride, world.device)
    scenes = (Scene.read(world, clips, part, context) for part in dreamt_together(indices, batch))
    found, kinds = zip(*(_measured(world, scene, sampling, seed, sets) for scene in scenes), strict=True)
    rows = {key: torch.cat([part[key] for part in found]) for key in found[0]}
    mean_reward = training_reward(clips.store, world.stride) if world.prior.spec.knows_rewards else None
    if mean_reward is not None:
        rows["reward_error", "training_mean"] = mean_reward - rows["reward", "real"]
    return HorizonReport(
        clips=len(indices),
        context=context,
        seed=seed,
        psnr=_over_clips(rows, "psnr"),
        ssim=_over_clips(rows, "ssim"),
        changed_psnr=_changed_psnr(rows),
        repeat_rates=_over_clips(rows, "repeats"),
        token_nats=_over_clips(rows, "nats"),
        likelihood_kind=kinds[0],
        token_entropy=_over_clips(rows, "entropy"),
        reward_rmse=_over_clips(rows, "reward_error", lambda error: error.square().mean(dim=0).sqrt()),
        controllability_se_db=_controllability_se(rows),
        fd_effnetlite0=sets.distances() if sets else None,
        fd_missing=missing,
        by_clip={key: values.numpy() for key, values in rows.items()},
        picks=tuple(indices.tolist()),
    )


def dreamt_together(indices: Tensor, batch: int = BATCH) -> list[list[int]]:
    """Clips (n,) in nearly equal parts, none of a single one, which nobody could lend actions. What is drawn in a dream
    depends on those beside it: who wants to see the dreams that were measured dreams the same parts.
    """
    return [part.tolist() for part in indices.tensor_split(-(-len(indices) // max(2, batch)))]


def training_reward(store: Store, stride: int) -> float | None:
    """Mean reward of a latent step in (a spread sample of) the training episodes; None if the store has none."""
    entries = store.split("train")
    if not entries:
        return None
    picks = metrics.evenly(len(entries), _REWARD_EPISODES)
    rewards = np.concatenate([store.reader(entries[i]).steps.rewards for i in picks])
    return float(rewards.mean(dtype=np.float64)) * stride


def _measured(world: Imaginer, scene: Scene, sampling: Sampling, seed: int, sets: FrameSets | None) -> tuple[Rows, str]:
    """All figures of a batch of clips, and whether the nats are exact or a bound."""
    dreams = scene.dreams(world, sampling, seed)
    codes, rebuilt = through_tokenizer(world.vqvae, scene.frames)
    videos = {of: torch.cat([scene.real[:, :1], dream.frames], dim=1) for of, dream in dreams.items()}
    videos |= {"reconstruction": rebuilt[:, scene.seen - 1 :], "repeat": scene.real[:, :1].expand_as(scene.real)}
    if sets:
        sets.add(scene.real, videos)
    nats, kind = _nats(world, scene, codes, seed)
    return _compared(videos, scene.real, world.stride) | _outcomes(world, scene, dreams, codes) | nats, kind


def _compared(videos: dict[str, Tensor], real: Tensor, s: int) -> Rows:
    """Figures of videos (b, 1 + s m, c, h, w) that begin with a frame of the past, as `real` does."""
    rows: dict[tuple[str, str], list[Tensor]] = {}
    for window in _windows(real.shape[1], s):
        y = to_unit(real[:, window])
        found = {("repeats", "real"): metrics.repeats(y[:, ::s])}
        for of, video in videos.items():
            x = to_unit(video[:, window])
            error, count = metrics.changed_pixel_errors(x, y)
            found["psnr", of] = reduce(metrics.psnr(x[:, 1:], y[:, 1:]), "b (m s) -> b m", "mean", s=s)
            found["ssim", of] = reduce(metrics.ssim(x[:, 1:], y[:, 1:]), "b (m s) -> b m", "mean", s=s)
            found["error", of] = reduce(error, "b (m s) -> b m", "sum", s=s)
            found["count", of] = reduce(count, "b (m s) -> b m", "sum", s=s)
            found["repeats", of] = metrics.repeats(x[:, ::s])
        for key, values in found.items():
            rows.setdefault(key, []).append(metrics.to_double(values))
    return {key: torch.cat(parts, dim=1) for key, parts in rows.items()}


def _windows(length: int, s: int) -> Iterator[slice]:
    """Slices of a few latent steps, each with the frame before it."""
    for first in range(0, length - 1, _STEPS * s):
        yield slice(first, min(first + _STEPS * s, length - 1) + 1)


def _outcomes(world: Imaginer, scene: Scene, dreams: dict[str, Imagination], codes: Tensor) -> Rows:
    """Entropy of the dreams, and if rewards were recorded, errors of theirs and the real ones."""
    rows = {("entropy", of): dream.entropy for of, dream in dreams.items()}
    if not world.prior.spec.knows_rewards:
        return {key: metrics.to_double(values) for key, values in rows.items()}
    m = dreams["imagined"].rewards.shape[1]
    real = scene.rewards[:, -m:]
    told = step_rewards(world.prior, codes, scene.grouped(scene.actions), scene.rewards)[:, -m:]
    predicted = {of: dream.rewards for of, dream in dreams.items()} | {"teacher_forced": told}
    rows |= {("reward_error", of): reward - real for of, reward in predicted.items()}
    return {key: metrics.to_double(values) for key, values in (rows | {("reward", "real"): real}).items()}


def _nats(world: Imaginer, scene: Scene, codes: Tensor, seed: int) -> tuple[Rows, str]:
    """Nats per token of the real codes after the context, and whether they are exact or a bound."""
    prior, m = world.prior, codes.shape[1] - world.vqvae.latent_length(scene.seen)
    true = scene.grouped(scene.actions)
    found = {"imagined": step_likelihood(prior, codes, true, seed)}
    if world.action_space.size:
        found["other_actions"] = step_likelihood(prior, codes, scene.grouped(scene.lent), seed)
    if prior.can_guide:
        found["no_actions"] = step_likelihood(prior, codes, true, seed, blind=True)
    rows = {("nats", of): metrics.to_double(it.nats[:, -m:]) / prior.spec.tokens for of, it in found.items()}
    return rows, found["imagined"].kind


def _controllability_se(rows: Rows) -> float | None:
    """Standard error of what the true actions are worth, over clips; None without actions."""
    if ("psnr", "other_actions") not in rows:
        return None
    gaps = (rows["psnr", "imagined"] - rows["psnr", "other_actions"]).mean(dim=1)
    return (gaps.std() / len(gaps) ** 0.5).item()


def _over_clips(
    rows: Rows, figure: str, how: Callable[[Tensor], Tensor] = lambda values: values.mean(dim=0)
) -> Compared:
    return {of: how(values).numpy() for (name, of), values in rows.items() if name == figure}


def _changed_psnr(rows: Rows) -> Compared:
    errors, counts = (_over_clips(rows, figure, lambda values: values.sum(dim=0)) for figure in ("error", "count"))
    pairs = {of: (torch.from_numpy(errors[of]), torch.from_numpy(counts[of])) for of in errors}
    return {of: metrics.changed_pixel_psnr(error, count).numpy() for of, (error, count) in pairs.items()}
