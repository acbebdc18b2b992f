"""Held-out figures of a world model per imagined step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from einops import reduce
from torch import Tensor

from vqvideo.data.clips import Clips
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.evaluation import metrics
from vqvideo.evaluation.frame_sets import FrameSets, FrechetConfig, lite0_missing
from vqvideo.evaluation.horizon import Compared, HorizonReport
from vqvideo.evaluation.likelihood import step_likelihood, step_rewards
from vqvideo.evaluation.scene import Scene, through_tokenizer
from vqvideo.models.imagination import Imagination, Imaginer
from vqvideo.models.pixels import to_unit
from vqvideo.models.prior.sampling import Sampling

_STEPS = 2
"""Latent steps that are floats at once: so few stay in the processor's cache."""
_REWARD_EPISODES = 64
"""Training episodes that the mean reward is taken of."""

Rows = dict[str, dict[str, Tensor]]
"""Figures (b, m) of each clip and latent step, by figure and by what it is of."""


@torch.no_grad()
def evaluate_world(
    world: Imaginer,
    clips: Clips,
    count: int,
    context: int,
    sampling: Sampling,
    seed: int,
    batch: int = 16,
    frechet: FrechetConfig | None = None,
) -> HorizonReport:
    """Dreams on from the first `context` latent steps of held-out clips and compares with what happened.

    Memory grows with the horizon by the uint8 frames of one batch only.

    Args:
        world: the model.
        clips: held-out clips of 1 + s (context - 1 + horizon) frames.
        count: how many of them, spread over the episodes; at least 2, since clips lend each other their actions.
        context: latent steps that the model sees.
        sampling: how codes are drawn.
        seed: of the dreams; the dreams under true, other and no actions use the same one.
        batch: clips dreamt at once.
        frechet: also measure Fréchet distances, where EfficientNet-Lite0 is installed.
    """
    indices = torch.as_tensor(clips.spread(count))
    if len(indices) < 2:
        raise InputError(f"{len(indices)} held-out clip(s), expected at least 2 to compare actions: record more")
    missing = lite0_missing() if frechet else None
    sets = None
    if frechet and not missing:
        steps = (clips.length - world.vqvae.clip_length(context)) // world.stride
        sets = FrameSets(frechet, len(indices), steps, world.stride, world.device)
    scenes = (Scene.read(world, clips, part.tolist(), context) for part in _chunks(indices, batch))
    found, kinds = zip(*(_measured(world, scene, sampling, seed, sets) for scene in scenes), strict=True)
    rows = _joined(found)
    return HorizonReport(
        clips=len(indices),
        context=context,
        seed=seed,
        psnrs=_means(rows["psnr"]),
        ssims=_means(rows["ssim"]),
        changed_psnrs=_changed_psnrs(rows["error"], rows["count"]),
        repeat_rates=_means(rows["repeats"]),
        token_nats=_means(rows["nats"]),
        likelihood_kind=kinds[0],
        token_entropy=_means(rows["entropy"]),
        reward_rmse=_reward_errors(rows, training_reward(clips.store, world.stride)),
        controllability_se_db=_standard_error(rows["psnr"]["imagined"] - rows["psnr"]["other_actions"]),
        fd_effnetlite0=sets.distances() if sets else None,
        fd_missing=missing,
    )


def training_reward(store: Store, stride: int) -> float | None:
    """Mean reward of a latent step in (a spread sample of) the training episodes; None if the store has none."""
    entries = store.split("train")
    if not entries:
        return None
    picks = torch.linspace(0, len(entries) - 1, min(_REWARD_EPISODES, len(entries))).round().long().tolist()
    rewards = [torch.from_numpy(store.reader(entries[i]).steps.rewards) for i in picks]
    return torch.cat(rewards).double().mean().item() * stride


def _chunks(indices: Tensor, batch: int) -> list[Tensor]:
    """Nearly equal parts of at most `batch`, none of a single clip."""
    return list(indices.tensor_split(-(-len(indices) // max(2, batch))))


def _measured(world: Imaginer, scene: Scene, sampling: Sampling, seed: int, sets: FrameSets | None) -> tuple[Rows, str]:
    """All figures of a batch of clips, and whether the nats are exact or a bound."""
    dreams = scene.dreams(world, sampling, seed)
    codes, rebuilt = through_tokenizer(world.vqvae, scene.frames)
    videos = {name: torch.cat([scene.real[:, :1], dream.frames], dim=1) for name, dream in dreams.items()}
    videos |= {"reconstruction": rebuilt[:, scene.seen - 1 :], "repeat": scene.real[:, :1].expand_as(scene.real)}
    if sets:
        sets.add(scene.real, videos)
    nats, kind = _nats(world, scene, codes, seed)
    return _compared(videos, scene.real, world.stride) | _outcomes(world, scene, dreams, codes) | nats, kind


def _compared(videos: dict[str, Tensor], real: Tensor, s: int) -> Rows:
    """Figures of videos (b, 1 + s m, c, h, w) that begin with a frame of the past, as `real` does."""
    rows: dict[str, dict[str, list[Tensor]]] = {}

    def add(figure: str, name: str, values: Tensor, how: str = "mean") -> None:
        values = metrics.to_double(values)
        step = reduce(values, "b (m s) -> b m", how, s=s) if figure != "repeats" else values
        rows.setdefault(figure, {}).setdefault(name, []).append(step)

    for window in _windows(real.shape[1], s):
        y = to_unit(real[:, window])
        add("repeats", "real", metrics.repeats(y[:, ::s]))
        for name, video in videos.items():
            x = to_unit(video[:, window])
            error, count = metrics.changed_pixel_errors(x, y)
            add("psnr", name, metrics.psnr(x[:, 1:], y[:, 1:]))
            add("ssim", name, metrics.ssim(x[:, 1:], y[:, 1:]))
            add("error", name, error, "sum")
            add("count", name, count, "sum")
            add("repeats", name, metrics.repeats(x[:, ::s]))
    return {figure: {name: torch.cat(v, dim=1) for name, v in of.items()} for figure, of in rows.items()}


def _windows(length: int, s: int) -> Iterator[slice]:
    """Slices of a few latent steps, each with the frame before it."""
    for first in range(0, length - 1, _STEPS * s):
        yield slice(first, min(first + _STEPS * s, length - 1) + 1)


def _outcomes(world: Imaginer, scene: Scene, dreams: dict[str, Imagination], codes: Tensor) -> Rows:
    """Entropy of the dreams, errors of their rewards, and the real rewards."""
    m = dreams["imagined"].rewards.shape[1]
    real = scene.rewards[:, -m:]
    predicted = {name: dream.rewards for name, dream in dreams.items()}
    told = step_rewards(world.prior, codes, scene.grouped(scene.actions), scene.rewards)
    predicted["teacher_forced"] = told[:, -m:]
    return {
        "entropy": {name: metrics.to_double(dream.entropy) for name, dream in dreams.items()},
        "reward_error": {name: metrics.to_double(reward - real) for name, reward in predicted.items()},
        "reward": {"real": metrics.to_double(real)},
    }


def _nats(world: Imaginer, scene: Scene, codes: Tensor, seed: int) -> tuple[Rows, str]:
    """Nats per token of the real codes after the context, and whether they are exact or a bound."""
    prior, m = world.prior, codes.shape[1] - world.vqvae.latent_length(scene.seen)
    true, lent = scene.grouped(scene.actions), scene.grouped(scene.lent)
    own = step_likelihood(prior, codes, true, seed)
    nats = {"imagined": own.nats, "other_actions": step_likelihood(prior, codes, lent, seed).nats}
    if prior.can_guide:
        nats["no_actions"] = step_likelihood(prior, codes, true, seed, blind=True).nats
    return {"nats": {name: metrics.to_double(n[:, -m:]) / prior.spec.tokens for name, n in nats.items()}}, own.kind


def _joined(parts: Sequence[Rows]) -> Rows:
    """Batches one after the other."""
    return {f: {n: torch.cat([part[f][n] for part in parts]) for n in of} for f, of in parts[0].items()}


def _means(rows: dict[str, Tensor]) -> Compared:
    return Compared(**{name: values.mean(dim=0).tolist() for name, values in rows.items()})


def _changed_psnrs(errors: dict[str, Tensor], counts: dict[str, Tensor]) -> Compared:
    def psnrs(name: str) -> list[float]:
        sums = zip(errors[name].sum(dim=0), counts[name].sum(dim=0), strict=True)
        return [metrics.changed_pixel_psnr(error, count) for error, count in sums]

    return Compared(**{name: psnrs(name) for name in errors})


def _reward_errors(rows: Rows, training_mean: float | None) -> Compared:
    errors = dict(rows["reward_error"])
    if training_mean is not None:
        errors["training_mean"] = training_mean - rows["reward"]["real"]
    return Compared(**{name: values.square().mean(dim=0).sqrt().tolist() for name, values in errors.items()})


def _standard_error(gaps: Tensor) -> float:
    """Of the mean over clips of gaps (b, m)."""
    return (gaps.mean(dim=1).std() / len(gaps) ** 0.5).item()
