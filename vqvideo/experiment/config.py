"""The experiment: every setting of every stage in one tree, read from one YAML file and from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

from vqvideo.agents.config import AgentStage
from vqvideo.data.config import RecordConfig, SegmentConfig, StillsConfig, check_name
from vqvideo.errors import InputError, at_least, fractions
from vqvideo.models.prior import PriorConfig, Sampling
from vqvideo.models.tokenizer import AdversarialConfig, NoAdversary, NoPerceptual, PerceptualConfig, VQVAEConfig
from vqvideo.storage.records import read_yaml, typed
from vqvideo.training.config import TrainConfig

E = TypeVar("E", bound="Experiment")
MAY_CHANGE = frozenset({"init", "validation_clips", "cache_gib", "most_tokens"})
"""Settings of a stage that a resumed run may have different. (Where the first weights came from counts by content, the
most tokens by the backbone that they led to.)
"""
MOST_TOKENS = 256
"""Tokens per latent step for which nobody need say how many: a prior's time grows with them, or faster."""
MOST_FRAMES = 40_000
"""Frames that are recorded where nobody says how many: of small worlds that is plenty."""
Measured = Literal[
    "vqvae.model.backbone",
    "vqvae.model.quantizer",
    "vqvae.model.reconstruction",
    "vqvae.train.steps",
    "prior.latent_steps",
    "prior.eventful",
    "prior.model.window",
    "prior.model.patch",
    "prior.model.dim",
    "prior.model.layers",
    "prior.model.time_every",
    "prior.model.head",
    "prior.model.pooling",
    "prior.model.corruption",
    "prior.model.reward_weight",
    "prior.model.termination_weight",
    "prior.train.batch",
    "prior.train.steps",
    "sampling.top_p",
]
"""Settings that can follow from the episodes (`experiment.suited`), in the order in which they do."""


@dataclass(frozen=True)
class VQVAEStage:
    """The tokenizer and its training."""

    model: VQVAEConfig = field(default_factory=VQVAEConfig)
    """The model."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Its training."""
    latent_steps: int = 5
    """Latent steps of a training clip, the first frame's included; 1 trains on single frames alone."""
    stills: StillsConfig = field(default_factory=StillsConfig)
    """Images beside the clips."""
    perceptual: PerceptualConfig = field(default_factory=NoPerceptual)
    """A perceptual term of the loss."""
    adversarial: AdversarialConfig = field(default_factory=NoAdversary)
    """An adversarial term of the loss."""
    init: Path | None = None
    """Folder of another tokenizer of the same model: training goes on from its weights and its codebook."""
    learns: Literal["all", "decoder"] = "all"
    """decoder: encoder and codebook stay those of init, so that clips keep their codes and only get sharper."""
    validation_clips: int = 32
    """Held-out clips for the validations during training."""
    cache_gib: float = 8.0
    """Memory in GiB for decoded frames, of each process that reads; training and held-out episodes share it by their
    lengths. What does not fit is decoded whenever it is needed.
    """
    most_tokens: int | None = None
    """Most tokens per latent step: for frames that make more, stem and strides of the backbone are doubled, and doubled
    again. None leaves it as it is. By default 256, or none where a flag names a backbone, or a file that does not set
    this.
    """

    def __post_init__(self) -> None:
        at_least(self, "vqvae.", latent_steps=1, validation_clips=1, cache_gib=0, most_tokens=1)
        if self.learns == "decoder" and self.init is None:
            raise InputError("vqvae.learns is decoder, expected a tokenizer whose codes are kept: vqvae.init")


@dataclass(frozen=True)
class PriorStage:
    """The prior and its training."""

    model: PriorConfig = field(default_factory=PriorConfig)
    """The model."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Its training."""
    latent_steps: int = 9
    """Latent steps of a training clip; the prior predicts all but the first."""
    segments: SegmentConfig = field(default_factory=SegmentConfig)
    """How episodes are cut up for encoding."""
    newest: float = 0.0
    """Share of the training clips, at least, from the newest quarter of the frames."""
    eventful: float = 0.0
    """Share of the training clips, at least, in which the episode ends, or brings another reward than the commonest:
    where that is rare, it is learnt sooner.
    """
    init: Path | None = None
    """Folder of another world model on the same tokenizer, or on the one that vqvae.init names: starts from its
    prior's weights wherever they fit.
    """
    validation_clips: int = 64
    """Held-out clips for the validations during training."""

    def __post_init__(self) -> None:
        at_least(self, "prior.", latent_steps=2, validation_clips=1)
        fractions(self, "prior.", "newest", "eventful")


@dataclass(frozen=True)
class Experiment:
    """An experiment: what to record, the tokenizer, the prior, an agent."""

    name: str = "car_racing"
    """Name of the run: results are in runs/<name>. Of a/b, in the folder b inside of runs/a."""
    runs: Path = Path("runs")
    """Folder of all runs."""
    record: RecordConfig = field(default_factory=RecordConfig)
    """The episodes."""
    vqvae: VQVAEStage = field(default_factory=VQVAEStage)
    """The tokenizer."""
    prior: PriorStage = field(default_factory=PriorStage)
    """The prior."""
    agent: AgentStage = field(default_factory=AgentStage)
    """The agent that learns in dreams."""
    sampling: Sampling = field(default_factory=Sampling)
    """How dreams are drawn."""
    measured: tuple[Measured, ...] = ()
    """Settings that follow from what the episodes show, in place of their values here. By default those that neither a
    flag nor the file names; none where the file names a backbone.
    """

    def __post_init__(self) -> None:
        check_name(self.name, self.runs)

    @property
    def folder(self) -> Path:
        """Where all results of this experiment are."""
        return self.runs / self.name


@dataclass(frozen=True)
class EnvOptions(Experiment):
    """Settings of the experiment."""

    env: str | None = None
    """Another environment, with a store and a run of its name: a preset, a Gymnasium id, or module:id."""


@dataclass(frozen=True)
class TrainingOptions(EnvOptions):
    """Settings of the experiment."""

    resume: bool = False
    """Go on from the newest checkpoint."""
    any_world_size: bool = False
    """With --resume: also if another number of processes wrote it; same samples, other rounding and noise."""
    store: Path | None = None
    """Folder of episodes that are there, recorded or imported, in the place of --record.out: nothing is recorded."""

    def on_store(self) -> Self:
        """The same settings, which name the episodes of --store as those to train on. InputError if there are none."""
        if self.store is None:
            return self
        manifest = self.store / "manifest.jsonl"
        if not manifest.is_file() or not manifest.stat().st_size:
            raise InputError(
                f"--store: no episodes in {self.store}. Import videos: python scripts/import_data.py my_videos --out "
                f"{self.store}; or record: python scripts/record.py --env CarRacing --out {self.store}"
            )
        return replace(self, record=replace(self.record, out=self.store))


def vqvae_folder(cfg: Experiment) -> Path:
    """Where the exported tokenizer of an experiment is: inside its stage's run folder."""
    return cfg.folder / "vqvae" / "model"


def codes_folder(cfg: Experiment) -> Path:
    """Where the codes of an experiment are if its store cannot be written; else they are beside the episodes."""
    return cfg.folder / "prior" / "codes"


def world_folder(cfg: Experiment) -> Path:
    """Where the exported world model of an experiment is."""
    return cfg.folder / "world"


def parse(cls: type[E], default_config: Path, description: str, *, measures: bool = False) -> E:
    """The settings of a script: defaults < YAML file (`--config`) < flags.

    Args:
        cls: Experiment, or a subclass with flags of the script's own.
        default_config: the YAML file when the command line names none. It is about episodes of its own: for others,
            what can be measured of them is.
        description: shown by --help.
        measures: whether the script trains with what is measured, and records so many frames as the file asks for.
    """
    import tyro

    flag = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    flag.add_argument("--config", type=Path)
    try:
        known, arguments = flag.parse_known_args()
    except argparse.ArgumentError as error:
        raise InputError("--config needs a file: --config configs/car_racing.yaml") from error
    arguments = _with_none(arguments)
    config = _shipped(known.config or default_config, default_config.parent)
    written = read_yaml(config)
    default = _with_most_tokens(typed(cls, written, str(config)), written, arguments)
    note = f"{description}\n\nSettings come from --config FILE (now {config}) and from the flags below."
    cfg = tyro.cli(cls, default=default, args=arguments, description=note, config=(tyro.conf.AvoidSubcommands,))
    cfg = _named(cfg, arguments)
    if not measures:
        return cfg
    if known.config is None and _is_about_others(cfg, default):
        cfg, written = replace(cfg, record=_recorded_otherwise(cfg.record, default.record, arguments)), {}
    return _with_measured(cfg, written, arguments)


def _named(cfg: E, arguments: Sequence[str]) -> E:
    """The settings with the episodes that --env or --source asks for, in a store and a run of their name. (The folder
    and the name in a config are those of its own episodes.)
    """
    env, source = getattr(cfg, "env", None), getattr(cfg, "source", None)
    if env is None and source is None:
        return cfg
    out = cfg.record.out if _flagged("record.out", arguments) else None
    record = replace(cfg.record, env=env or cfg.record.env, source=source or cfg.record.source, out=out)
    return replace(cfg, record=record, name=cfg.name if _flagged("name", arguments) else record.folder.name)


def _is_about_others(cfg: Experiment, default: Experiment) -> bool:
    """Whether the flags name other episodes than those that the default file is about, or the run has been."""
    env, source = cfg.record.env, cfg.record.source
    store, run = getattr(cfg, "store", None), cfg.folder / "vqvae" / "config.yaml"
    if store is not None and (store / "meta.json").is_file():
        from vqvideo.data.index import read_meta

        return read_meta(store)[0].env_id != default.record.env
    if cfg.record == default.record and source is None and env == default.record.env and run.is_file():
        begun = typed(Experiment, read_yaml(run), str(run)).record
        env, source = begun.env, begun.source
    return (env, source, store) != (default.record.env, default.record.source, None)


def _recorded_otherwise(record: RecordConfig, default: RecordConfig, arguments: Sequence[str]) -> RecordConfig:
    """What the flags ask to be recorded, and of the default file only how many frames."""
    plain = RecordConfig()
    own = {f.name: getattr(plain, f.name) for f in fields(plain) if not _flagged(f"record.{f.name}", arguments)}
    frames = min(default.episodes * default.steps, MOST_FRAMES)
    record = replace(record, **{**own, "env": record.env, "source": record.source})
    if _flagged("record.episodes", arguments) or record.frames:
        return record
    return replace(record, episodes=-(-frames // record.steps), frames=frames)


def _with_measured(cfg: E, written: Mapping[str, Any], arguments: Sequence[str]) -> E:
    """The settings with the names of those to be measured: what neither file nor flags name."""
    designed = "backbone" in written.get("vqvae", {}).get("model", {})
    if designed or "measured" in written or _flagged("measured", arguments):
        return cfg
    names = [name for name in get_args(Measured) if not (_flagged(name, arguments) or _names(written, name))]
    if "vqvae.model.backbone" in names and not (
        _flagged("vqvae.most_tokens", arguments) or _names(written, "vqvae.most_tokens")
    ):
        cfg = replace(cfg, vqvae=replace(cfg.vqvae, most_tokens=MOST_TOKENS))
    return replace(cfg, measured=tuple(names))


def _flagged(name: str, arguments: Sequence[str]) -> bool:
    """Whether a flag is of a setting, or of a part of it."""
    flags = [word.partition("=")[0].removeprefix("--").replace("-", "_") for word in arguments if word[:2] == "--"]
    return any(flag == name or flag.startswith((f"{name}.", f"{name}:")) for flag in flags)


def _names(written: Any, name: str) -> bool:
    """Whether a file names a setting, or a part of it."""
    for part in name.split("."):
        if not isinstance(written, Mapping) or part not in written:
            return False
        written = written[part]
    return True


def _with_none(arguments: Sequence[str]) -> list[str]:
    """The arguments with None for none and null, as the messages and the YAML files say, where it means no limit."""
    pairs = zip(["", *arguments], arguments, strict=False)
    return ["None" if ".train." in flag and word in ("none", "null") else word for flag, word in pairs]


def _with_most_tokens(default: E, written: Mapping[str, Any], arguments: Sequence[str]) -> E:
    """The settings of a file with the limit for the backbone: who names a backbone gets that one."""
    vqvae = written.get("vqvae", {})
    by_flag = any(word.startswith("--vqvae.model.backbone") for word in arguments)
    by_file = "most_tokens" in vqvae or "backbone" in vqvae.get("model", {})
    if by_file and not by_flag:
        return default
    return replace(default, vqvae=replace(default.vqvae, most_tokens=None if by_flag else MOST_TOKENS))


def _shipped(config: Path, home: Path) -> Path:
    """The file, or where there is none, the one of that name that comes along in `home`: outside of a clone too,
    `configs/tiny_world.yaml` and plain `tiny_world` are known.
    """
    relative = config.relative_to("configs") if config.parts[:1] == ("configs",) else config
    come_along = (home / relative).with_suffix(".yaml")
    return come_along if come_along.is_file() and not config.is_file() else config
