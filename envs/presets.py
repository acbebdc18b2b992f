"""Environments by name: a table of presets, and a plain preset for any other Gymnasium id."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium

from vqvideo.envs.car_racing import DrawOnDemand, draw_anywhere
from vqvideo.envs.modules import find_spec
from vqvideo.errors import InputError, at_least, suggest


@dataclass(frozen=True)
class Preset:
    """How one environment is made, recorded and, by default, played."""

    env_id: str
    """Gymnasium id."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Passed to `gymnasium.make`."""
    action_repeat: int = 1
    """Env steps for which each action is held; their rewards add up."""
    skip_first: int = 0
    """Env steps with an idle action at each reset, before the first recorded frame."""
    policy: str = "sticky-random"
    """Default policy, a name in `vqvideo.envs.policies.POLICIES`."""
    pixels: str | None = None
    """Where the frames come from, as `vqvideo.envs.pixels.choose` takes it; None: a picture that the environment
    observes, or else what it renders.
    """
    fps: float | None = None
    """Env steps per second of real time; None: what the environment's metadata says."""
    actions: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Constant actions by name, as flat vectors: what "steer left" means here."""
    extra: str | None = None
    """The extra of `vqvideo` that installs this environment: `pip install 'vqvideo[extra]'`."""
    wrap: Callable[[gymnasium.Env], gymnasium.Env] | None = None
    """A wrapper of this environment's own, put around action repeat."""

    def __post_init__(self) -> None:
        at_least(self, "--", action_repeat=1, skip_first=0)


PRESETS: dict[str, Preset] = {
    "CarRacing": Preset(
        env_id="CarRacing-v3",
        kwargs={"continuous": True},
        # At 50 frames/s neighbouring frames hardly differ, and neither do the effects of two actions.
        action_repeat=2,
        # The first second is an animation in which the camera zooms in.
        skip_first=50,
        policy="drive",
        fps=50.0,
        actions={
            "left": (-0.5, 0.2, 0.0),
            "right": (0.5, 0.2, 0.0),
            "straight": (0.0, 0.5, 0.0),
            "brake": (0.0, 0.0, 0.8),
            "coast": (0.0, 0.0, 0.0),
        },
        wrap=DrawOnDemand,
    ),
    "Doom": Preset(
        env_id="vqvideo/Doom-v0",
        action_repeat=4,
        pixels="screen",
        fps=35.0,
        extra="doom",
    ),
    "TinyWorld": Preset(
        env_id="vqvideo/TinyWorld-v0",
        fps=10.0,
        actions={"stay": (0,), "up": (1,), "down": (2,), "left": (3,), "right": (4,)},
    ),
}

# A board of 6 x 6 tiles, each 8 x 8 pixels, with three balls that roll about. To walk into a ball or a wall ends the
# episode with -1, to reach the green goal with up to 1.
PRESETS["DynamicObstacles"] = Preset(
    env_id="minigrid:MiniGrid-Dynamic-Obstacles-Random-6x6-v0",
    kwargs={"tile_size": 8, "highlight": False},
    policy="random",
    actions={"left": (0,), "right": (1,), "forward": (2,)},
    extra="minigrid",
)

# The same road and car, with a start on another piece of the track in each episode.
PRESETS["CarRacingAnywhere"] = replace(PRESETS["CarRacing"], wrap=draw_anywhere)

gymnasium.register(id="vqvideo/Doom-v0", entry_point="vqvideo.envs.doom:my_way_home")
gymnasium.register(id="vqvideo/TinyWorld-v0", entry_point="vqvideo.envs.tiny_world:TinyWorld", max_episode_steps=200)


def resolve(name: str) -> Preset:
    """The preset called `name`, or the one for that Gymnasium id, or a plain one for any other id.

    Raises:
        InputError: no preset and no registered environment has that name.
    """
    if name in PRESETS:
        return PRESETS[name]
    for preset in PRESETS.values():
        if preset.env_id == name:
            return preset
    try:
        find_spec(name)
    except gymnasium.error.Error as error:
        raise unknown(name) from error
    return Preset(env_id=name)


def name_of(preset: Preset) -> str:
    """The name for which `resolve` gives this preset back, but for settings that a recording replaces."""
    for name, known in PRESETS.items():
        if (known.env_id, known.kwargs, known.wrap) == (preset.env_id, preset.kwargs, preset.wrap):
            return name
    return preset.env_id


def unknown(name: str) -> InputError:
    """The error for an id that nothing registered, with the nearest names that are known."""
    stem = name.removesuffix(".py").partition(".")[0]
    if stem and Path(f"{stem}.py").is_file():
        return InputError(f"{name} is no environment: --env takes module and registered id, as in {stem}:My-v0")
    for path in sorted(Path.cwd().glob("*.py")):
        if re.search(rf"[\"']{re.escape(name)}[\"']", path.read_text(encoding="utf-8", errors="replace")):
            return InputError(f"no environment is called {name!r}, but {path.name} names one: --env {path.stem}:{name}")
    hint = suggest(name, {*PRESETS, *gymnasium.registry})
    hint = hint or f"presets are {', '.join(PRESETS)}; `gymnasium.pprint_registry()` lists all other ids."
    return InputError(
        f"no environment is called {name!r}: {hint} One that a module or a package registers is named with it, as in "
        "my_module:My-v0"
    )
