"""What to write a store out as. Free of heavy imports, so that scripts show their help at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vqvideo.errors import InputError

Split = Literal["all", "train", "held_out"]


@dataclass(frozen=True)
class ExportConfig:
    """What to write out, and as what."""

    store: tyro.conf.Positional[Path]
    """Folder of the episodes, such as data/car_racing."""
    format: Annotated[Literal["lerobot", "minari", "mp4", "hub"], tyro.conf.arg(name="to")]
    """lerobot: a LeRobot dataset v3.0. minari: a Minari dataset in HDF5. mp4: a film and a CSV file for each episode.
    hub: the store itself, onto the Hugging Face Hub."""
    out: Path | None = None
    """A new folder; by default exports/<store>_<format>, such as exports/car_racing_minari."""
    lossless: bool = False
    """Frames to the bit where they would become films: PNG in lerobot, FFV1 in mp4. In minari they always are."""
    split: Split = "all"
    """Which episodes: all, or those of one split."""
    repo: str | None = None
    """For hub: the repository, such as your_name/car_racing."""
    private: bool = False
    """For hub: whether a new repository is seen by yourself only."""

    def __post_init__(self) -> None:
        if self.format == "hub" and not self.repo:
            raise InputError("--to hub: whereto? Name a repository: --repo your_name/car_racing")
        if self.format == "hub" and (self.out or self.lossless or self.split != "all"):
            raise InputError("--to hub puts the store there as it is: without --out, --lossless and --split")
        if self.format != "hub" and (self.repo or self.private):
            raise InputError("--repo and --private belong to --to hub; a folder is --out")

    @property
    def folder(self) -> Path:
        """Where the export goes."""
        return self.out or Path("exports") / f"{self.store.resolve().name}_{self.format}"
