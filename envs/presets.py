"""Environments by name: a table of presets, those of families, and a plain preset for any other Gymnasium id."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import gymnasium

from vqvideo.envs import car_racing_faults
from vqvideo.envs.car_racing import DrawOnDemand, draw_anywhere
from vqvideo.envs.doom import named_actions
from vqvideo.envs.families import preset_of
from vqvideo.envs.modules import find_spec
from vqvideo.envs.packages import PACKAGES, package_of, registered
from vqvideo.envs.preset import DRAWN, Preset
from vqvideo.errors import InputError, suggest

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
        faults=car_racing_faults.FAULTS,
    ),
    "Doom": Preset(
        env_id="vqvideo/Doom-v0",
        action_repeat=4,
        pixels="screen",
        fps=35.0,
        extra="doom",
        name_actions=named_actions,
    ),
    "TinyWorld": Preset(
        env_id="vqvideo/TinyWorld-v0",
        fps=10.0,
        best="shortest-path",
        frame_size=DRAWN,
        actions={"stay": (0,), "up": (1,), "down": (2,), "left": (3,), "right": (4,)},
    ),
}

# A board of 6 x 6 tiles, each 8 x 8 pixels, with three balls that roll about. To walk into a ball or a wall ends the
# episode with -1, to reach the green goal with up to 1.
PRESETS["DynamicObstacles"] = Preset(
    env_id="minigrid:MiniGrid-Dynamic-Obstacles-Random-6x6-v0",
    kwargs={"tile_size": 8, "highlight": False},
    policy="random",
    frame_size=DRAWN,
    actions={"left": (0,), "right": (1,), "forward": (2,)},
    extra="minigrid",
)

# The same road and car, with a start on another piece of the track in each episode.
PRESETS["CarRacingAnywhere"] = replace(PRESETS["CarRacing"], wrap=draw_anywhere)

gymnasium.register(id="vqvideo/Doom-v0", entry_point="vqvideo.envs.doom:my_way_home")
gymnasium.register(id="vqvideo/TinyWorld-v0", entry_point="vqvideo.envs.tiny_world:TinyWorld", max_episode_steps=200)


def resolve(name: str) -> Preset:
    """The preset called `name`, or the one for that Gymnasium id, or that of its family, or a plain one for any other
    id.

    Raises:
        InputError: no preset and no registered environment has that name, or its package is missing.
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
    return preset_of(package_of(name), name)


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
    package = package_of(name)
    if package and (family := registered(package)):
        others = f"{package.module} has {len(family)} others, such as {package.example}."
        return InputError(f"no environment is called {name!r}: {suggest(name, family) or others}")
    examples = {package.example for package in PACKAGES}
    hint = suggest(name, {*PRESETS, *gymnasium.registry, *examples})
    hint = hint or (
        f"presets are {', '.join(PRESETS)}; other packages' are called like {', '.join(sorted(examples))}; "
        "`gymnasium.pprint_registry()` lists all other ids."
    )
    return InputError(
        f"no environment is called {name!r}: {hint} One that a module or a package registers is named with it, as in "
        "my_module:My-v0"
    )
