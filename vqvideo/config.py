"""The experiment: every setting of every stage in one tree, read from one YAML file and from the command line."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from vqvideo.data.codes import SegmentConfig
from vqvideo.errors import InputError
from vqvideo.prior import PriorConfig
from vqvideo.records import read_yaml, to_plain, typed
from vqvideo.sampling import Sampling
from vqvideo.training import TrainConfig
from vqvideo.vqvae import VQVAEConfig

E = TypeVar("E", bound="Experiment")


@dataclass(frozen=True)
class RecordConfig:
    """What to record."""

    env: str = "CarRacing"
    """A preset (CarRacing, TinyWorld) or any Gymnasium id."""
    out: Path | None = None
    """Folder of the store; by default data/<environment>, such as data/car_racing."""
    episodes: int = 36
    """Episodes that the store holds in the end."""
    steps: int = 150
    """Longest episode, in stored steps."""
    frame_size: int = 64
    """Height and width of the stored frames in pixels."""
    held_out_every: int = 6
    """Every n-th episode is held out for evaluation; 0 for none."""
    policy: str | None = None
    """What presses the buttons: random, sticky-random, smooth, drive; by default the preset's choice."""
    action_repeat: int | None = None
    """Env steps for which an action is held; by default the preset's."""
    skip_first: int | None = None
    """Env steps left out at the start of each episode; by default the preset's."""
    seed: int = 0
    """Everything follows from it: equal seeds record equal episodes."""
    workers: int | None = None
    """Processes; by default one per core. 0 plays in this process."""


@dataclass(frozen=True)
class VQVAEStage:
    """The tokenizer and its training."""

    model: VQVAEConfig = field(default_factory=VQVAEConfig)
    """The model."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Its training."""
    latent_steps: int = 5
    """Latent steps of a training clip, the first frame's included."""
    validation_clips: int = 32
    """Held-out clips for the validations during training."""


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
    validation_clips: int = 64
    """Held-out clips for the validations during training."""


@dataclass(frozen=True)
class Experiment:
    """An experiment: what to record, the tokenizer, the prior."""

    name: str = "car_racing"
    """Name of the run: results are in runs/<name>."""
    runs: Path = Path("runs")
    """Folder of all runs."""
    record: RecordConfig = field(default_factory=RecordConfig)
    """The episodes."""
    vqvae: VQVAEStage = field(default_factory=VQVAEStage)
    """The tokenizer."""
    prior: PriorStage = field(default_factory=PriorStage)
    """The prior."""
    sampling: Sampling = field(default_factory=Sampling)
    """How dreams are drawn."""

    @property
    def folder(self) -> Path:
        """Where all results of this experiment are."""
        return self.runs / self.name


def parse(cls: type[E], default_config: Path, description: str) -> E:
    """The settings of a script: defaults < YAML file (`--config`) < flags.

    Args:
        cls: Experiment, or a subclass with flags of the script's own.
        default_config: the YAML file when the command line names none.
        description: shown by --help.
    """
    import tyro

    config, arguments = _split_config_flag(sys.argv[1:], default_config)
    default = typed(cls, read_yaml(config), str(config))
    note = f"{description}\n\nSettings come from --config FILE (now {config}) and from the flags below."
    return tyro.cli(cls, default=default, args=arguments, description=note, config=(tyro.conf.AvoidSubcommands,))


def _split_config_flag(arguments: list[str], default: Path) -> tuple[Path, list[str]]:
    """`--config FILE` or `--config=FILE`, and the other arguments."""
    rest, config = [], default
    words = iter(arguments)
    for word in words:
        if word == "--config":
            value = next(words, None)
            if value is None:
                raise InputError("--config needs a file: --config configs/car_racing.yaml")
            config = Path(value)
        elif word.startswith("--config="):
            config = Path(word.removeprefix("--config="))
        else:
            rest.append(word)
    return config, rest


def flat_settings(value: object) -> dict[str, str | int | float | bool]:
    """All settings as one flat dict with dotted names, as experiment trackers want them."""
    flat: dict[str, str | int | float | bool] = {}

    def walk(prefix: str, plain: object) -> None:
        if isinstance(plain, dict):
            for key, item in plain.items():
                walk(f"{prefix}.{key}" if prefix else str(key), item)
        else:
            flat[prefix] = plain if isinstance(plain, str | int | float | bool) else str(plain)

    walk("", to_plain(value))
    return flat
