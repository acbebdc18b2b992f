"""What improving in rounds is told. Free of heavy imports, so that a script can show its help at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vqvideo.errors import InputError
from vqvideo.training.config import TrainConfig


@dataclass(frozen=True)
class ImproveConfig:
    """Rounds of playing, learning the world from it, and learning to play in the dream."""

    rounds: int = 3
    """Rounds in all; the first one, round 0, learns from the config's own recording."""
    episodes: int = 60
    """Episodes that the agent of the round before plays at the beginning of each further round."""
    exploration: float = 0.1
    """Share of its steps in them with a random action, so that the world model also meets what the agent avoids."""
    share: float = 0.5
    """Share of the steps of tokenizer and prior with which a further round trains them on."""

    def __post_init__(self) -> None:
        for name in ("rounds", "episodes"):
            if getattr(self, name) < 1:
                raise InputError(f"improve.{name} is {getattr(self, name)}, expected at least 1")
        if not 0 <= self.exploration <= 1:
            raise InputError(f"improve.exploration is {self.exploration}, expected 0 .. 1")
        if not 0 < self.share <= 1:
            raise InputError(f"improve.share is {self.share}, expected more than 0 and at most 1")

    def going_on(self, train: TrainConfig) -> TrainConfig:
        """A training of a further round: the same schedule of the learning rate, in a share of the time."""
        return replace(
            train,
            steps=max(1, round(train.steps * self.share)),
            warmup=round(train.warmup * self.share),
            max_seconds=train.max_seconds and train.max_seconds * self.share,
        )
