"""What the time of an imagined step goes into, measured inside of the step: by itself a part shares the rows between
threads otherwise, and copies memories that in a dream go on in place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

import torch

from vqvideo.evaluation.speed import Dreaming
from vqvideo.scripts.benchmarks.timing import Work, synchronise

PARTS = ("backbone", "head", "decoder")
"""What a step consists of, besides reward, end and bookkeeping."""


def parts_of(dreaming: Dreaming, step: Work, steps: int, device: torch.device) -> dict[str, float]:
    """Seconds of a `step` of the dream, "whole", and of its parts: medians over some steps. The decoder's are what
    the prior leaves, with the checks of the actions.
    """
    prior = dreaming.world.prior
    taken: dict[str, list[float]] = {"whole": [], "prior": [], "backbone": [], "head": []}
    with ExitStack() as stack:
        watch = (("prior", prior, "step"), ("backbone", prior.backbone, "step"), ("head", prior.head, "sample"))
        for name, owner, method in watch:
            stack.enter_context(_watched(owner, method, taken[name], device))
        for _ in range(steps):
            _timed(step, taken["whole"], device)()
    found = {name: median(seconds) for name, seconds in taken.items()}
    decoder = median(whole - own for whole, own in zip(taken["whole"], taken["prior"], strict=True))
    return {name: found[name] for name in ("whole", "backbone", "head")} | {"decoder": decoder}


@contextmanager
def _watched(owner: Any, method: str, taken: list[float], device: torch.device) -> Iterator[None]:
    """Notes the seconds of each call of a method."""
    setattr(owner, method, _timed(getattr(owner, method), taken, device))
    try:
        yield
    finally:
        delattr(owner, method)


def _timed(function: Callable[..., Any], taken: list[float], device: torch.device) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        synchronise(device)
        began = time.perf_counter()
        result = function(*arguments, **named)
        synchronise(device)
        taken.append(time.perf_counter() - began)
        return result

    return call
