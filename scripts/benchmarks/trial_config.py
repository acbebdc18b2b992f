"""How priors are measured, free of heavy imports: a script shows it in its help."""

from __future__ import annotations

from dataclasses import dataclass

from vqvideo.errors import InputError


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
        for name, least in (("horizon", 1), ("context", 1), ("clips", 2), ("code_clips", 1), ("frechet_frames", 0)):
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag} is {getattr(self, name)}, expected at least {least}")
