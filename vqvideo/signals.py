"""Signals that ask a run to stop."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

from vqvideo.errors import RunStoppedError


class InterruptedRunError(RunStoppedError):
    """A signal asked the run to stop; a checkpoint was saved. Scripts exit with 128 + its number."""

    def __init__(self, number: int, where: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; go on with --resume (saved in {where})")
        self.exit_code = 128 + number


class StopSignal:
    """Remembers SIGTERM and SIGINT until the step boundary; a second one acts at once."""

    def __init__(self) -> None:
        self.number = 0
        self._old: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._old[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: FrameType | None) -> None:
        if self.number:
            os._exit(128 + number)
        self.number = number
