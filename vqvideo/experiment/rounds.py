"""Rounds of improvement: an agent plays, the world model learns from it, the agent learns on in the dream.

Each round is an experiment of its own that goes on from the one before; a log says what is done.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vqvideo.errors import InputError, at_least, fractions
from vqvideo.evaluation import returns
from vqvideo.evaluation.tables import table
from vqvideo.experiment.config import Experiment, vqvae_folder, world_folder
from vqvideo.storage import files
from vqvideo.storage.records import flat_settings, to_plain, without_nan
from vqvideo.training.config import LENGTH, MAY_CHANGE, TrainConfig, defaults_beside

Figures = dict[str, Any]
"""What a stage did, as plain JSON."""
EPISODES = 60
"""That an agent plays for a further round, where nobody says how many."""


@dataclass(frozen=True)
class ImproveConfig:
    """Rounds of playing, learning the world from it, and learning to play in the dream."""

    rounds: int = 3
    """Rounds in all; the first one, round 0, learns from the config's own recording."""
    episodes: int | None = None
    """Episodes that the agent of the round before plays at the beginning of each further round. By default 60, or as
    many times more as round 0 took to have the frames that are wanted, where they end early.
    """
    exploration: float = 0.1
    """Share of its steps in them with a random action, so that the world model also meets what the agent avoids."""
    share: float = 0.5
    """Share of the prior's steps with which a further round trains it on. The tokenizer stays that of round 0: codes
    that moved would have to be learnt anew.
    """
    newest: float = 0.5
    """Share of the newest quarter of all frames in what a further round trains the prior with, and of the newest
    quarter of the episodes in where its dreams begin.
    """
    control: bool = True
    """Also train the agent of the perfect dream, for comparison: as many steps in the real environment, from the same
    moments. These do not count as real frames.
    """
    direct: bool = False
    """In the end also train agents in the real environment alone, from as many real frames as the rounds took: the
    best of 8, 16 and 64 environments side by side is what dreams compete with.
    """

    def __post_init__(self) -> None:
        at_least(self, "improve.", rounds=1, episodes=1)
        fractions(self, "improve.", "exploration", "newest")
        if not 0 < self.share <= 1:
            raise InputError(f"improve.share is {self.share}, expected more than 0 and at most 1")

    def going_on(self, train: TrainConfig) -> TrainConfig:
        """A training of a further round: the same schedule of the learning rate, in a share of the time."""
        return replace(
            train,
            steps=max(1, round(train.steps * self.share)),
            warmup=round(train.warmup * self.share),
            min_seconds=train.min_seconds and train.min_seconds * self.share,
            max_seconds=train.max_seconds and train.max_seconds * self.share,
        )


@dataclass(frozen=True)
class Round:
    """One round."""

    cfg: Experiment
    """Its settings, with a folder of its own; `record.episodes` are all episodes up to now."""
    before: Experiment | None
    """Those of the round that it goes on from; None for round 0."""
    how: ImproveConfig
    """Settings of the rounds."""
    tokenizer: Path
    """Where the tokenizer of all rounds is."""


def agent_folder(cfg: Experiment) -> Path:
    """Where the agent of a round is."""
    return cfg.folder / "agent" / "model"


def control_folder(cfg: Experiment) -> Path:
    """Where the agent of the perfect dream is, which learnt as long."""
    return cfg.folder / "agent" / "control"


def nth_round(cfg: Experiment, how: ImproveConfig, number: int) -> Round:
    """Round `number` of a run.

    Args:
        cfg: the settings of round 0. With `record.out` None, the store that grows is kept with the run: episodes that
            an agent played must not get among those that other experiments share.
        how: of the rounds.
        number: from 0.
    """
    before = _experiment(cfg, how, number - 1) if number else None
    return Round(_experiment(cfg, how, number), before, how, vqvae_folder(_experiment(cfg, how, 0)))


def _experiment(cfg: Experiment, how: ImproveConfig, number: int) -> Experiment:
    episodes = cfg.record.episodes + number * (how.episodes or EPISODES)
    record = replace(cfg.record, out=cfg.record.out or cfg.folder / "data", episodes=episodes)
    own = replace(cfg, runs=cfg.folder, name=f"round_{number}", record=record)
    if number == 0:
        return own
    before = replace(own, name=f"round_{number - 1}")
    prior = replace(cfg.prior, init=world_folder(before), train=how.going_on(cfg.prior.train), newest=how.newest)
    return replace(own, prior=prior, agent=replace(cfg.agent, newest=how.newest))


@dataclass
class RoundLog:
    """The settings of a run, and what each stage of each round did: a JSON file, written as soon as a stage is done."""

    path: Path
    settings: Figures
    rounds: list[Figures] = field(default_factory=list)
    """Of each round its figures by stage."""

    @classmethod
    def open(cls, path: Path, cfg: Experiment, how: ImproveConfig) -> RoundLog:
        """The log of a run that goes on, or a new one.

        Raises:
            InputError: the run began with other settings, or the file is damaged.
        """
        settings = _lasting_settings(cfg, how)
        if not path.exists():
            return cls(path, settings)
        found = files.parse_json(files.read_small(path), str(path))
        try:
            before, rounds = dict(found["settings"]), list(found["rounds"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: settings or rounds are missing: the file is damaged") from error
        before = defaults_beside(cfg, before) | defaults_beside(how, before, "improve.") | before
        changed = sorted(name for name in before.keys() & settings.keys() if before[name] != settings[name])
        if changed:
            listed = ", ".join(f"{name} {before[name]!r} -> {settings[name]!r}" for name in changed)
            raise InputError(f"{path} began with other settings: {listed}. Repeat them, or name a new run with --name")
        return cls(path, settings, rounds)

    def has(self, number: int, stage: str) -> bool:
        """Whether a stage is done."""
        return number < len(self.rounds) and stage in self.rounds[number]

    def add(self, number: int, stage: str, figures: Figures) -> None:
        """Notes durably that a stage is done."""
        if number == len(self.rounds):
            self.rounds.append({"round": number})
        self.rounds[number][stage] = without_nan(figures)
        text = json.dumps({"settings": self.settings, "rounds": self.rounds}, indent=2, allow_nan=False)
        files.write_file(self.path, (text + "\n").encode())


def _lasting_settings(cfg: Experiment, how: ImproveConfig) -> Figures:
    """What all rounds have in common, by dotted name; without what only machine or reports depend on."""
    # Rounds of other lengths could not be compared, so the steps must stay.
    free = {f"{stage}.train.{name}" for stage in ("vqvae", "prior") for name in MAY_CHANGE.difference(LENGTH)}
    free |= {"name", "runs", "vqvae.cache_gib", "vqvae.most_tokens", "improve.rounds"}
    # Where the real game turns out not to repeat itself, the run goes on without what needs that.
    free |= {"improve.control", "improve.direct", "agent.checks"}
    free |= {f"record.{name}" for name in ("workers", "step_timeout", "reset_timeout")}
    own = {name: to_plain(getattr(cfg, name)) for name in ("record", "vqvae", "prior", "agent", "sampling")}
    settings = flat_settings({**own, "improve": to_plain(how)})
    return {name: value for name, value in settings.items() if name not in free}


def round_line(rounds: list[Figures], number: int) -> str:
    """A round in a sentence, beside random actions and the perfect dream."""
    frames, played = rounds[number]["episodes"]["real_frames"], rounds[number]["returns"]
    beside = {"random": _random(rounds)} | ({"perfect dream": played["control"]} if "control" in played else {})
    others = "; ".join(f"{name} {_mean(figures)}" for name, figures in beside.items())
    return f"round {number}: {frames:,} real frames, return {_mean(played['agent'])}; {others}"


def round_table(rounds: list[Figures]) -> str:
    """The agents of all rounds, between random actions and the best player, if one is known."""
    first = rounds[0]["returns"]
    rows = [("random", "", *returns.cells(first["random"]), "", "", "")]
    for figures in rounds:
        if "returns" in figures:
            frames = f"{figures['episodes']['real_frames']:,}"
            played = figures["returns"]
            cells = returns.cells(played["agent"]), f"{played['agent, greedy']['mean_return']:.2f}"
            rows.append((f"round {figures['round']}", frames, *cells[0], cells[1], *_beside_control(rounds, played)))
            direct = figures.get("direct", {"returns": {}})["returns"]
            rows += [(name, frames, *returns.cells(each), "", "", "") for name, each in direct.items()]
    if "best possible" in first:
        rows.append(("best possible", "", *returns.cells(first["best possible"]), "", "", ""))
    return table(("agent", "real frames", *returns.HEADS, "greedy", "perfect dream", "share of its gain"), rows)


def _beside_control(rounds: list[Figures], played: Figures) -> tuple[str, str]:
    """Return of the perfect dream's agent, and how much of its gain over random actions the agent has."""
    if "control" not in played:
        return "", ""
    means = [played["agent"]["mean_return"], played["control"]["mean_return"], _random(rounds)["mean_return"]]
    share = f"{returns.share_of_gain(*means):.0%}" if means[1] > means[2] else ""
    return f"{means[1]:.2f}", share


def _mean(figures: Figures) -> str:
    return " ".join(returns.cells(figures)[:2])


def _random(rounds: list[Figures]) -> Figures:
    return rounds[0]["returns"]["random"]
