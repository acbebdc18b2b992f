"""Held-out figures of a world model per imagined step, and its speed."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import torch
from einops import reduce
from torch import Tensor

from vqvideo import metrics
from vqvideo.data.clips import Clips
from vqvideo.errors import InputError
from vqvideo.evaluation.tokenizer import stack_frames
from vqvideo.sampling import Sampling
from vqvideo.video import to_unit
from vqvideo.world import WorldModel, WorldStep


@dataclass(frozen=True)
class HorizonReport:
    """Figures per imagined latent step, means over clips, against the real frames."""

    clips: int
    """Held-out clips."""
    context: int
    """Latent steps of context."""
    seed: int
    """Seed of the dreams."""
    psnr_db: list[float]
    """Imagined under the true actions."""
    psnr_repeat_db: list[float]
    """Baseline: the last context frame, repeated."""
    psnr_reconstruction_db: list[float]
    """Ceiling: the real frames through the tokenizer."""
    psnr_other_actions_db: list[float]
    """Imagined under the actions of another clip."""
    ssim: list[float]
    """Imagined under the true actions."""
    ssim_repeat: list[float]
    """Baseline: the last context frame, repeated."""
    repeat_rate: float
    """Share of imagined steps that merely repeat the step before."""
    repeat_rate_real: float
    """The same of the real frames: a car may stand still."""

    @property
    def psnr_gain_db(self) -> list[float]:
        """Over repeating the last context frame."""
        return [a - b for a, b in zip(self.psnr_db, self.psnr_repeat_db, strict=True)]

    @property
    def ssim_gain(self) -> list[float]:
        """Over repeating the last context frame."""
        return [a - b for a, b in zip(self.ssim, self.ssim_repeat, strict=True)]

    @property
    def controllability_db(self) -> float:
        """PSNR with the true actions minus PSNR with those of another clip, over the whole horizon."""
        gaps = [a - b for a, b in zip(self.psnr_db, self.psnr_other_actions_db, strict=True)]
        return sum(gaps) / len(gaps)

    def to_json(self) -> dict[str, object]:
        """All figures, the derived ones too."""
        derived = ("psnr_gain_db", "ssim_gain", "controllability_db")
        return asdict(self) | {name: getattr(self, name) for name in derived}

    def table(self) -> str:
        """The figures as text, a line per latent step."""
        lines = [
            f"held-out clips {self.clips}, context {self.context} latent steps, seed {self.seed}; PSNR in dB against "
            "the real frames",
            "step  imagined  repeat last  other actions  reconstructed  gain   SSIM   SSIM repeat",
        ]
        rows = zip(
            self.psnr_db, self.psnr_repeat_db, self.psnr_other_actions_db, self.psnr_reconstruction_db,
            self.psnr_gain_db, self.ssim, self.ssim_repeat, strict=True,
        )  # fmt: skip
        for k, (imagined, repeat, other, ceiling, gain, ssim, ssim_repeat) in enumerate(rows, start=1):
            lines.append(
                f"{k:4d} {imagined:9.2f} {repeat:12.2f} {other:14.2f} {ceiling:14.2f} {gain:+6.2f} {ssim:6.3f} "
                f"{ssim_repeat:12.3f}"
            )
        lines.append(
            f"controllability {self.controllability_db:+.2f} dB   repeat rate {self.repeat_rate:.1%} "
            f"(real frames {self.repeat_rate_real:.1%})"
        )
        return "\n".join(lines)


@torch.no_grad()
def evaluate_world(
    world: WorldModel, clips: Clips, count: int, context: int, sampling: Sampling, seed: int, batch: int = 16
) -> HorizonReport:
    """Dreams on from the first `context` latent steps of held-out clips and compares with what happened.

    Args:
        world: the model.
        clips: held-out clips of 1 + s (context - 1 + horizon) frames.
        count: how many of them, spread over the episodes; at least 2, since clips lend each other their actions.
        context: latent steps that the model sees.
        sampling: how codes are drawn.
        seed: of the dreams; the dreams under true and other actions use the same one.
        batch: clips dreamt at once.
    """
    indices = torch.as_tensor(clips.spread(count))
    if len(indices) < 2:
        raise InputError(f"{len(indices)} held-out clip(s), expected at least 2 to compare actions: record more")
    parts = [_horizon(world, clips, part.tolist(), context, sampling, seed) for part in _chunks(indices, batch)]
    rows = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    means = {key: value.mean(dim=0).tolist() for key, value in rows.items() if not key.endswith("_frames")}
    return HorizonReport(
        clips=len(indices),
        context=context,
        seed=seed,
        repeat_rate=metrics.repeat_rate(rows["imagined_frames"]),
        repeat_rate_real=metrics.repeat_rate(rows["real_frames"]),
        **means,
    )


def _chunks(indices: Tensor, batch: int) -> list[Tensor]:
    """Nearly equal parts of at most `batch`, none of a single clip."""
    return list(indices.tensor_split(-(-len(indices) // max(2, batch))))


def _horizon(
    world: WorldModel, clips: Clips, indices: list[int], context: int, sampling: Sampling, seed: int
) -> dict[str, Tensor]:
    """(b, m) figures of a batch of clips."""
    frames = stack_frames(clips, indices).to(world.device)
    actions = torch.stack([clips[i]["actions"] for i in indices])
    seen = world.vqvae.clip_length(context)
    lent = torch.cat([actions[:, : seen - 1], actions.roll(1, dims=0)[:, seen - 1 :]], dim=1)
    dream = world.imagine(frames[:, :seen], actions, sampling=sampling, seed=seed)
    other = world.imagine(frames[:, :seen], lent, sampling=sampling, seed=seed)
    real, s = to_unit(frames[:, seen:]), world.stride
    rebuilt = world.vqvae.decode(world.vqvae.encode(frames))[:, seen:]
    imagined, repeated = to_unit(dream.frames), to_unit(frames[:, seen - 1 : seen]).expand_as(real)

    def per_step(values: Tensor) -> Tensor:
        return reduce(values, "b (m s) -> b m", "mean", s=s)

    return {
        "psnr_db": per_step(metrics.psnr(imagined, real)),
        "psnr_repeat_db": per_step(metrics.psnr(repeated, real)),
        "psnr_reconstruction_db": per_step(metrics.psnr(rebuilt, real)),
        "psnr_other_actions_db": per_step(metrics.psnr(to_unit(other.frames), real)),
        "ssim": per_step(metrics.ssim(imagined, real)),
        "ssim_repeat": per_step(metrics.ssim(repeated, real)),
        "imagined_frames": torch.cat([to_unit(frames[:, seen - 1 : seen]), imagined[:, s - 1 :: s]], dim=1),
        "real_frames": to_unit(frames[:, seen - 1 :: s]),
    }


class Dreaming:
    """Streams that dream on from a black frame under one ordinary action; each call imagines a latent step.

    What is dreamt has no meaning: this is for measuring speed.

    Args:
        world: the model.
        streams: dreams at once.
        sampling: how codes are drawn.
    """

    def __init__(self, world: WorldModel, streams: int, sampling: Sampling | None = None) -> None:
        h, w = world.vqvae.frame_size
        space, stats = world.action_space, world.prior.spec.stats
        action = [c.start if c.categories else m for c, m in zip(space.columns, stats.mean, strict=True)]
        self.world, self.sampling = world, sampling
        self.action = torch.tensor(action).expand(streams, world.stride, -1)
        self.state = world.start(torch.zeros(streams, 1, 3, h, w), self.action[:, :0])

    def __call__(self) -> WorldStep:
        step, self.state = self.world.step(self.state, self.action, sampling=self.sampling)
        return step


@torch.no_grad()
def imagination_speed(world: WorldModel, streams: int, steps: int = 40, trials: int = 3) -> float:
    """Imagined frames per second over all streams, decoding included: the median of a few trials."""
    dream, rates = Dreaming(world, streams), []
    for _ in range(trials):
        for _ in range(5):
            dream()
        began = time.perf_counter()
        for _ in range(steps):
            step = dream()
        step.frames.cpu()
        rates.append(streams * steps * world.stride / (time.perf_counter() - began))
    return sorted(rates)[trials // 2]
