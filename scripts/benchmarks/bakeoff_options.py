"""The settings of bake-offs: an experiment that all variants share, which variants, and how priors are measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from vqvideo.errors import at_least
from vqvideo.experiment.config import Experiment

CONFIGS = Path(__file__).parents[2] / "configs"


@dataclass(frozen=True)
class BakeoffOptions(Experiment):
    """Settings of the experiment."""

    suite: Path = CONFIGS / "bakeoff" / "tokenizer.yaml"
    """The variants to compare."""
    only: tuple[str, ...] = ()
    """Names of the variants to run; all by default."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds, one run of each variant for each."""


@dataclass(frozen=True)
class TrialConfig:
    """How priors are measured."""

    horizon: int = 80
    """Latent steps that are imagined: ten times the window, to see what becomes of long dreams."""
    context: int = 4
    """Latent steps that the model sees of each clip."""
    clips: int = 32
    """Held-out clips that are dreamt on."""
    code_clips: int = 256
    """Held-out clips of codes for the likelihood and the rewards."""
    frechet_frames: int = 256
    """Frames in each set whose Fréchet distance is taken, a set for as many latent steps as the window; 0 for none."""
    dream_seed: int = 0
    """Seed of the dreams."""

    def __post_init__(self) -> None:
        at_least(self, "--", horizon=1, context=1, clips=2, code_clips=1, frechet_frames=0)


@dataclass(frozen=True)
class PriorBakeoffOptions(BakeoffOptions):
    """Settings of the experiment."""

    suite: Path = CONFIGS / "bakeoff" / "prior_heads.yaml"
    """The variants to compare."""
    tokenizer: Path = Path("runs") / "car_racing" / "vqvae" / "model"
    """Folder of the trained tokenizer."""
    trial: tyro.conf.OmitArgPrefixes[TrialConfig] = field(default_factory=TrialConfig)
    """How they are measured."""
    plot: Path | None = None
    """Draws gain and Fréchet distance over the horizon into this picture (PNG, PDF, SVG, ...)."""
