"""CarRacing's own parts: a wrapper that draws only the frames that are seen, and a driver.

The driver is privileged: it reads the track and the car from the simulator. It follows the road most
of the time and leaves it now and then, because a model of the road alone would not know what grass does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import gymnasium
import numpy as np
from numpy.typing import NDArray

from vqvideo.errors import InputError

Array = NDArray[np.float64]


class DrawOnDemand(gymnasium.Wrapper):
    """Draws CarRacing's observation once for the action, not once for every env step inside it.

    Drawing takes most of a step's time, and action repeat and skipped first steps throw frames away.
    The frames that are left are equal to those of the plain environment.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        # Cast: `_render` is CarRacing's own.
        self.inner = cast(Any, self.unwrapped)
        self.draw = self.inner._render
        self.blank = np.zeros(self.observation_space.shape or (), np.uint8)
        self.score = 0.0
        self.inner._render = self._render

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        _, info = self.env.reset(seed=seed, options=options)
        return self._frame(), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        _, reward, terminated, truncated, info = self.env.step(action)
        return self._frame(), reward, terminated, truncated, info

    def _render(self, mode: str) -> Any:
        if mode != "state_pixels":
            return self.draw(mode)
        self.score = self.inner.reward
        return self.blank

    def _frame(self) -> NDArray[np.uint8]:
        # The picture shows the score as it was in mid-step, before the step's cost was taken off.
        now, self.inner.reward = self.inner.reward, self.score
        frame = self.draw("state_pixels")
        self.inner.reward = now
        return frame


class StartAnywhere(gymnasium.Wrapper):
    """Puts the car on a random tile at each reset, at rest and facing along the road.

    CarRacing's tracks are random, but each begins with the same straight and the same left bend: short
    episodes from the start line see little else.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        observation, info = self.env.reset(seed=seed, options=options)
        inner: Any = self.unwrapped
        tile = int(inner.np_random.integers(len(inner.track)))
        make_car = type(inner.car)
        inner.car.destroy()
        inner.car = make_car(inner.world, *inner.track[tile][1:4])
        # The observation still shows the old place; DrawOnDemand, around this wrapper, draws the new one.
        return observation, info


def draw_anywhere(env: gymnasium.Env) -> gymnasium.Env:
    """CarRacing that starts anywhere and draws on demand."""
    return DrawOnDemand(StartAnywhere(env))


@dataclass(frozen=True)
class Style:
    """How one episode is driven; drawn anew for each. Lengths in the simulator's units."""

    top_speed: float
    grip: float
    """Lateral acceleration that the driver trusts in curves."""
    offset: float
    """Preferred distance from the middle of the road, positive to the right; the road is 13.3 wide."""
    gas: float
    """Strongest gas."""
    steering_noise: float
    gas_noise: float
    wander_every: float
    """Mean steps between two wanderings."""


class Car(NamedTuple):
    """The car's state relative to the world."""

    place: Array
    angle: float
    speed: float
    slip: float
    spin: float


class Wander(NamedTuple):
    """A phase in which the driver does something else than following the road."""

    kind: str
    steps: int
    strength: float
    side: float


WANDERS = ("veer", "zigzag", "brake", "stop", "coast", "floor")
TILE = 3.5
FAR = 40.0


class Drive:
    """Follows CarRacing's road with a style of its own in each episode, and wanders off sometimes."""

    def reset(self, env: gymnasium.Env, rng: np.random.Generator) -> None:
        self.env = env.unwrapped
        if not hasattr(self.env, "track") or not hasattr(self.env, "car") or env.action_space.shape != (3,):
            raise InputError(
                f"the policy 'drive' drives CarRacing with continuous actions, not {self.env}. "
                "Use --policy sticky-random, smooth or random."
            )
        self.rng = rng
        self.style = draw_style(rng)
        self.road = Road(self.env.track)
        self.noise = np.zeros(2)
        self.tile = 0
        self.stuck = 0
        self.wander: Wander | None = None
        self.wander_step = 0

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        car = _read(self.env.car)  # type: ignore[attr-defined]
        self.tile = self.road.nearest(car.place, self.tile)
        follow = self._follow(car)
        controls = self._wander(follow, car) if self._wandering() else follow
        controls = self._unstick(controls, car)
        controls[:2] += self._next_noise() * [1.0, controls[2] == 0.0]
        return np.clip(controls, [-1, 0, 0], [1, 1, 1]).astype(np.float32)

    def _follow(self, car: Car) -> Array:
        ahead = 8.0 + 0.30 * max(car.speed, 0.0)
        error = _wrap(self.road.heading(car.place, self.tile, ahead, self.style.offset) - car.angle)
        steer = -(1.6 * error - 0.10 * car.spin)
        wanted = min(self.style.top_speed, self.road.safe_speed(self.tile, car.speed, self.style.grip))
        # Far off the road, or facing away from it, a fast car only goes in circles.
        lost = max(abs(error) / 0.7, self.road.distance(car.place, self.tile) / 12.0)
        wanted = min(wanted, self.style.top_speed / max(lost, 1.0))
        return np.array([np.clip(steer, -1, 1), *self._pedals(car, max(wanted, 14.0), steer)])

    def _pedals(self, car: Car, wanted: float, steer: float) -> tuple[float, float]:
        if abs(car.slip) > 12.0 or abs(car.spin) > 3.0:
            return 0.0, 0.1
        gap = wanted - car.speed
        if gap < -4.0:
            return 0.0, float(np.clip(-gap / 40.0, 0.05, 0.7))
        # Rear wheels that push while the front ones turn make the car spin.
        return float(np.clip(gap / 12.0, 0.0, self.style.gas) * (1 - 0.6 * min(abs(steer), 1.0))), 0.0

    def _wandering(self) -> bool:
        if self.wander is None:
            if self.rng.random() < 1 / self.style.wander_every:
                self.wander, self.wander_step = draw_wander(self.rng), 0
        else:
            self.wander_step += 1
            if self.wander_step >= self.wander.steps:
                self.wander = None
        return self.wander is not None

    def _wander(self, follow: Array, car: Car) -> Array:
        assert self.wander is not None
        kind, _, strength, side = self.wander
        steer, gas, _ = follow
        if kind == "veer":
            return np.array([side * strength * 0.6, max(gas, 0.25), 0.0])
        if kind == "zigzag":
            turn = side if (self.wander_step // (3 + int(5 * strength))) % 2 else -side
            return np.array([turn * (0.3 + 0.7 * strength), gas, 0.0])
        if kind == "brake":
            return np.array([steer, 0.0, 0.2 + 0.8 * strength])
        if kind == "stop":
            return np.array([side * strength * 0.5, 0.0, 0.6 if car.speed > 1.0 else 0.0])
        if kind == "coast":
            return np.array([steer, 0.0, 0.0])
        return np.array([steer * (1 - 0.5 * strength), 1.0, 0.0])

    def _unstick(self, controls: Array, car: Car) -> Array:
        self.stuck = self.stuck + 1 if abs(car.speed) < 2.0 and self.wander is None else 0
        if self.stuck > 10:
            controls = np.array([controls[0], 0.7, 0.0])
        return controls

    def _next_noise(self) -> Array:
        """Coloured noise on steering and gas: hands and feet do not jump at every step."""
        keep = 0.85
        self.noise = keep * self.noise + np.sqrt(1 - keep**2) * self.rng.standard_normal(2)
        return self.noise * [self.style.steering_noise, self.style.gas_noise]


class Road:
    """The middle line of CarRacing's track: a closed row of tiles, each with place and direction.

    Args:
        track: the simulator's list of (alpha, beta, x, y) per tile.
    """

    def __init__(self, track: list[tuple[float, float, float, float]]) -> None:
        tiles = np.array(track)
        self.angles, self.places = tiles[:, 1], tiles[:, 2:4]
        self.rights = np.stack([np.cos(self.angles), np.sin(self.angles)], axis=1)
        bends = np.abs(_wrap(np.roll(self.angles, -1) - self.angles)) / TILE
        self.curvature = (np.roll(bends, 1) + bends + np.roll(bends, -1)) / 3

    def nearest(self, place: Array, last: int) -> int:
        """The nearest tile, looked for near the last one first: roads run beside each other."""
        near = (last + np.arange(-8, 25)) % len(self.places)
        gaps = np.linalg.norm(self.places[near] - place, axis=1)
        if gaps.min() < FAR:
            return int(near[gaps.argmin()])
        return int(np.linalg.norm(self.places - place, axis=1).argmin())

    def heading(self, place: Array, tile: int, ahead: float, offset: float) -> float:
        """The angle from `place` to the point `ahead` on the road, `offset` to the right of its middle."""
        there = (tile + round(ahead / TILE)) % len(self.places)
        x, y = self.places[there] + offset * self.rights[there] - place
        return float(np.arctan2(-x, y))

    def safe_speed(self, tile: int, speed: float, grip: float) -> float:
        """The speed from which every curve in sight can still be braked for."""
        count = 4 + int(max(speed, 0.0) ** 2 / (2 * grip) / TILE)
        ahead = np.arange(min(count, 40))
        curves = grip / np.maximum(self.curvature[(tile + ahead) % len(self.places)], 1e-4)
        return float(np.sqrt(curves + grip * TILE * ahead).min())

    def distance(self, place: Array, tile: int) -> float:
        """How far `place` is from the middle of the road at `tile`."""
        return float(np.linalg.norm(self.places[tile] - place))


def draw_style(rng: np.random.Generator) -> Style:
    """A random style, from a careful driver to one who is too fast for the curves."""
    boldness = rng.random()
    return Style(
        top_speed=25.0 + 45.0 * boldness + rng.uniform(-5, 5),
        grip=35.0 + 60.0 * boldness * rng.random(),
        offset=float(np.clip(rng.normal(0, 1.8), -4.5, 4.5)),
        gas=0.4 + 0.6 * rng.random(),
        steering_noise=rng.uniform(0.02, 0.15),
        gas_noise=rng.uniform(0.02, 0.12),
        wander_every=rng.uniform(60, 200),
    )


def draw_wander(rng: np.random.Generator) -> Wander:
    """A random wandering of half a second to a second and a half."""
    kind = WANDERS[int(rng.choice(len(WANDERS), p=[0.35, 0.2, 0.1, 0.12, 0.1, 0.13]))]
    steps = int(rng.integers(10, 36))
    return Wander(kind, steps, float(rng.random()), float(rng.choice([-1.0, 1.0])))


def _read(car: Any) -> Car:
    angle = float(car.hull.angle)
    forward = np.array([-np.sin(angle), np.cos(angle)])
    right = np.array([np.cos(angle), np.sin(angle)])
    velocity = np.array(car.hull.linearVelocity)
    return Car(
        place=np.array(car.hull.position),
        angle=angle,
        speed=float(velocity @ forward),
        slip=float(velocity @ right),
        spin=float(car.hull.angularVelocity),
    )


def _wrap(angle: Any) -> Any:
    return (angle + np.pi) % (2 * np.pi) - np.pi
