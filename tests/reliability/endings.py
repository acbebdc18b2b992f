"""How a training that met a fault has to end, and to go on once the fault is gone."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable

import torch

from reliability.lives import Life, Plan
from reliability.outcome import NotPossibleHereError
from reliability.results import differences, leftovers, results
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.training import trainer as training

INPUT_ERROR, NOT_FINITE, STOPPED = 2, 3, 1
"""Exit codes."""
NO_MOUNT = 77
"""Exit code of a process that may not mount."""


def badly_ended(life: Life, code: int, message: str) -> list[str]:
    """What is wrong with the end of a training that has to end with a code and a message, on all ranks."""
    codes = life.wait()
    if NO_MOUNT in codes:
        raise NotPossibleHereError("a mount of its own")
    words = life.last_words(4000)
    wrong = [] if set(codes) == {code} else [f"exit codes {codes}, expected {code}: {words[-300:]}"]
    wrong += [] if re.search(message, words) else [f"the message is not {message}: {words[-500:]}"]
    return wrong + (["a traceback"] if "Traceback" in words else [])


def goes_on(plan: Plan, expected: dict[str, str], world: int = 1) -> list[str]:
    """What is wrong with the run once the fault is gone."""
    codes = Life(plan, world).wait()
    if any(codes):
        return [f"exit codes {codes}"]
    return differences(results(plan), expected) + leftovers(plan)


def before_step(
    step: int, action: Callable[[], object], on_model: Callable[[VQVAE], object] | None = None, *, every: bool = False
) -> None:
    real = training.Trainer._optimizer_step

    def watched(self: training.Trainer, *args: object) -> dict[str, float]:
        if self.step == step - 1 or (every and self.step >= step):
            action()
            if on_model is not None:
                with torch.no_grad():
                    on_model(self.model.vqvae)  # type: ignore[arg-type]
        return real(self, *args)  # type: ignore[arg-type]

    training.Trainer._optimizer_step = watched  # type: ignore[method-assign]


def in_fork(action: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == NO_MOUNT:
            raise NotPossibleHereError("a mount of its own")
        return code
    try:
        action()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
