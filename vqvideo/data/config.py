"""How recorded episodes are read for training. Free of heavy imports, so that a script can show its help at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vqvideo.errors import at_least


@dataclass(frozen=True)
class SegmentConfig:
    """How episodes are cut up for encoding."""

    latent_steps: int = 13
    """Latent steps of a segment; shorter episodes make shorter ones."""
    every: int = 7
    """Frames from the start of one segment to the next; an odd number meets every phase of the time stride."""

    def __post_init__(self) -> None:
        at_least(self, "segments.", latent_steps=2, every=1)


@dataclass(frozen=True)
class StillsConfig:
    """Images in every training batch, beside the clips. An image is a clip of one frame."""

    per_batch: int = 0
    """Images per optimizer step, over all ranks and accumulated micro batches."""
    folder: Path | None = None
    """Folder of images (PNG, JPEG, WebP, BMP), searched in depth; by default single frames of the training episodes."""

    def __post_init__(self) -> None:
        at_least(self, "stills.", per_batch=0)
