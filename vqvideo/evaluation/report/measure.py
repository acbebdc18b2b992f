"""Everything that a page shows of a world, measured once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vqvideo.data.clips import Clips, stack_frames
from vqvideo.evaluation.horizon import HorizonReport
from vqvideo.evaluation.metrics import evenly
from vqvideo.evaluation.pictures import Frames, dream_rows, what_if_rows
from vqvideo.evaluation.prior import teacher_forced
from vqvideo.evaluation.speed import imagination_speed
from vqvideo.evaluation.tokenizer import evaluate_tokenizer
from vqvideo.evaluation.world import dreamt_together, evaluate_world
from vqvideo.models.imagination import Imaginer
from vqvideo.models.prior import Sampling
from vqvideo.models.quantizers.usage import CodeUsage
from vqvideo.spaces import ActionSpace

STREAMS = (1, 16)
"""Dreams at once whose speed is measured."""
_CHOICES = 6
"""Rows of a fan, at most."""


@dataclass(frozen=True)
class Questions:
    """What to measure."""

    clips: int = 32
    """Held-out clips."""
    shown: int = 3
    """Of how many of them to show pictures, and as many of the worst."""
    context: int = 3
    """Latent steps that the model sees."""
    teacher_steps: int = 13
    """Latent steps of the clips for the teacher-forced figures."""
    sampling: Sampling = field(default_factory=Sampling)
    """How codes are drawn."""
    seed: int = 0
    """Of the dreams."""


@dataclass(frozen=True)
class Subject:
    """A world, and what is known of it."""

    name: str
    """What the page calls it."""
    world: Imaginer
    """The model."""
    clips: Clips
    """Held-out clips of the context and what is dreamt."""
    logs: Mapping[str, Sequence[Mapping[str, Any]]]
    """Lines of metrics.jsonl by stage; none of a world that comes along."""
    choices: Mapping[str, Sequence[float]]
    """Constant actions by name; those of `extreme_actions` where there are none."""
    facts: Mapping[str, str]
    """What else the page states of it."""


@dataclass(frozen=True)
class Measured:
    """The figures and pictures of a world."""

    subject: Subject
    """The world."""
    asked: Questions
    """What was measured."""
    report: HorizonReport
    """Along the horizon."""
    tokenizer: Mapping[str, float]
    """Of `evaluate_tokenizer`, over the same clips."""
    usage: CodeUsage
    """Its codes."""
    told: Mapping[str, Any]
    """Of `teacher_forced`."""
    speed: Mapping[int, float]
    """Imagined frames/s by streams."""
    dreams: Mapping[int, list[Frames]]
    """Real, reconstructed and imagined frames of some clips, by their number."""
    fan: Mapping[str, Frames]
    """Of one clip what is real, and what is imagined under each choice of actions."""
    codes: Tensor
    """Of the same clip, (t, h, w)."""

    @property
    def name(self) -> str:
        """What the page calls it."""
        return self.subject.name

    @property
    def world(self) -> Imaginer:
        """The model."""
        return self.subject.world

    @property
    def shown(self) -> list[int]:
        """Clips that are shown, by their number: as evenly spread as the others."""
        return _shown(self.report, self.asked)

    @property
    def worst(self) -> list[int]:
        """Clips whose dreams are least like what happened, from the worst on."""
        return _worst(self.report, self.asked)

    def figures(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "tokenizer": dict(self.tokenizer),
            "teacher_forced": dict(self.told),
            "dreams": self.report.to_json(),
            "frames_per_s": {str(streams): rate for streams, rate in self.speed.items()},
            "facts": dict(self.subject.facts),
        }


def measure(subject: Subject, asked: Questions) -> Measured:
    """Measures a world, and says what it is at.

    Raises:
        InputError: fewer than two clips for a world with actions, or a context that the prior does not look back over.
    """
    world, clips = subject.world, subject.clips
    count = min(asked.clips, len(clips))
    _say(subject, f"dreams of {count} clips")
    report = evaluate_world(world, clips, count, asked.context, asked.sampling, asked.seed)
    _say(subject, "tokenizer and prior")
    usage = CodeUsage(world.vqvae.quantizer.codebook_size)
    tokenizer = evaluate_tokenizer(world.vqvae, clips, count, usage=usage)
    told = teacher_forced(world, clips.store, asked.teacher_steps)
    _say(subject, "speed")
    speed = {streams: imagination_speed(world, streams) for streams in STREAMS}
    _say(subject, "pictures")
    dreams = _dreams(subject, asked, report, {*_shown(report, asked), *_worst(report, asked)})
    first = stack_frames(clips, [report.picks[_shown(report, asked)[0]]])
    with torch.no_grad():
        codes = world.vqvae.encode(first.to(world.device))[0].cpu()
    fan = _fan(subject, asked, report, first)
    return Measured(subject, asked, report, tokenizer, usage, told, speed, dreams, fan, codes)


def extreme_actions(space: ActionSpace, usual: Sequence[float]) -> dict[str, list[float]]:
    """Constant actions for a space without named ones: each category of each column, or its smallest and largest value,
    with the others as usual (a,).
    """
    found = {}
    for number, column in enumerate(space.columns):
        name = " ".join(filter(None, (column.leaf, f"action {number + 1}" if space.size > 1 else "action")))
        ends = [usual[number] - 1, usual[number] + 1]
        low, high = (end if abs(end) < 1e6 else near for end, near in zip((column.low, column.high), ends, strict=True))
        categories = range(column.start, column.start + column.categories) if column.categories else (low, high)
        for value in categories:
            found[f"{name} = {value:g}"] = [*usual[:number], float(value), *usual[number + 1 :]]
    return found


def _say(subject: Subject, what: str) -> None:
    print(f"{subject.name}: {what} ...", flush=True)


def _shown(report: HorizonReport, asked: Questions) -> list[int]:
    return evenly(report.clips, asked.shown)


def _worst(report: HorizonReport, asked: Questions) -> list[int]:
    return report.by_clip["psnr", "imagined"].mean(axis=1).argsort(kind="stable")[: asked.shown].tolist()


def _dreams(subject: Subject, asked: Questions, report: HorizonReport, wanted: set[int]) -> dict[int, list[Frames]]:
    """The rows of the clips that are wanted: of the very dreams that were measured."""
    found: dict[int, list[Frames]] = {}
    for part in dreamt_together(torch.arange(report.clips)):
        if wanted.isdisjoint(part):
            continue
        picks = [report.picks[number] for number in part]
        actions = torch.stack([subject.clips[i]["actions"] for i in picks])
        frames = stack_frames(subject.clips, picks)
        rows = dream_rows(subject.world, frames, actions, asked.context, asked.sampling, asked.seed)
        found |= {number: row for number, row in zip(part, rows, strict=True) if number in wanted}
    return found


def _fan(subject: Subject, asked: Questions, report: HorizonReport, frames: Tensor) -> dict[str, Frames]:
    """What a clip (1, t, c, h, w) becomes under the true actions, and under each of some constant ones."""
    space = subject.world.action_space
    if not space.size:
        return {}
    stats = subject.world.prior.spec.stats
    usual = [c.start if c.categories else m for c, m in zip(space.columns, stats.mean, strict=True)]
    constant = list((subject.choices or extreme_actions(space, usual)).items())[:_CHOICES]
    true = subject.clips[report.picks[_shown(report, asked)[0]]]["actions"][None]
    seen = subject.world.vqvae.clip_length(asked.context) - 1
    choices = [true, *(_then(true, seen, action) for _, action in constant)]
    (rows,) = what_if_rows(subject.world, frames, choices, asked.context, asked.sampling, asked.seed)
    names = ("real", "true actions", *(name for name, _ in constant))
    return dict(zip(names, rows, strict=True))


def _then(true: Tensor, seen: int, action: Sequence[float]) -> Tensor:
    """The true actions (1, t, a) in the context, and a constant one after it."""
    after = torch.as_tensor(action, dtype=true.dtype).expand(1, true.shape[1] - seen, -1)
    return torch.cat([true[:, :seen], after], dim=1)
