"""Averaged weights: the ones that are validated and exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


class AveragedWeights:
    """An exponential moving average of parameters, by name. Buffers (a codebook) are not averaged: they are taken
    over.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self._live = dict(parameters)
        self.values = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the live weights; faster in the first steps, which are soon forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        live = [self._live[name].detach() for name in self.values]
        torch._foreach_lerp_(list(self.values.values()), live, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights inside this context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._live.items():
            live = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(live)
