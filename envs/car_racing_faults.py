"""What can go wrong in CarRacing alone: its tyres, its engine, and whether the car is seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np

from vqvideo.envs.faults import Fault


class _Constant(Fault):
    """A constant of the simulator's times the severity, during a step: other environments keep theirs."""

    constant: str

    def step(self, env: gymnasium.Env, action: Any, last: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        with _scaled(self.constant, self.severity):
            return env.step(action)[0], action


class SlipperyTyres(_Constant):
    """Less friction, a share of what it was."""

    severities = (0.5, 0.2)
    title = "friction"
    constant = "FRICTION_LIMIT"


class WeakEngine(_Constant):
    """Less power, a share of what it was."""

    severities = (0.5, 0.0)
    title = "engine power"
    constant = "ENGINE_POWER"


class InvisibleCar(Fault):
    """The car drives on, and is not seen."""

    severities = (1.0,)
    title = "car removed"
    family = "semantics"

    def begin(self, env: gymnasium.Env) -> None:
        inner: Any = env.unwrapped
        inner.car.draw = lambda *_: None

    def step(self, env: gymnasium.Env, action: Any, last: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        return env.step(action)[0], action


@contextmanager
def _scaled(name: str, factor: float) -> Iterator[None]:
    from gymnasium.envs.box2d import car_dynamics

    whole = getattr(car_dynamics, name)
    setattr(car_dynamics, name, factor * whole)
    try:
        yield
    finally:
        setattr(car_dynamics, name, whole)


FAULTS: tuple[type[Fault], ...] = (SlipperyTyres, WeakEngine, InvisibleCar)
