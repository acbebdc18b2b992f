"""Environments by name: a table of presets, and `make` for them and for any Gymnasium id.

Scripts and tests import this package as `vqvideo.envs`; the library itself knows no environment.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

# SDL reads these once, when pygame is loaded, and without a display its default driver fails.
if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import gymnasium
from gymnasium.envs.registration import EnvSpec

from vqvideo.envs.car_racing import DrawOnDemand, draw_anywhere
from vqvideo.envs.wrappers import ActionRepeat, PixelFrames, ResizedFrames, SkipFirst, observes_pixels
from vqvideo.errors import InputError, MissingExtraError, at_least, suggest
from vqvideo.spaces import ActionSpace

if TYPE_CHECKING:
    from vqvideo.data.index import StoreMeta

__all__ = ["PRESETS", "Preset", "as_recorded", "find_spec", "make", "name_of", "resolve"]


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
    pixels_key: str | None = None
    """Where the picture is in a Dict observation; None: the observation itself, or else `render()`."""
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
        pixels_key="screen",
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
    except ImportError as error:
        raise _missing(name, None, error) from error
    except (gymnasium.error.Error, ValueError) as error:
        raise InputError(f"no environment is called {name!r}: {_hint(name)}") from error
    return Preset(env_id=name)


def find_spec(env_id: str) -> EnvSpec:
    """The registered spec of an id; of "package:id" after importing the package, which registers it."""
    package, _, plain_id = env_id.rpartition(":")
    if package:
        importlib.import_module(package)
    return gymnasium.spec(plain_id)


def name_of(preset: Preset) -> str:
    """The name for which `resolve` gives this preset back, but for settings that a recording replaces."""
    for name, known in PRESETS.items():
        if (known.env_id, known.kwargs, known.wrap) == (preset.env_id, preset.kwargs, preset.wrap):
            return name
    return preset.env_id


def make(preset: Preset) -> gymnasium.Env:
    """The preset's environment, whose observation is the frame, (h, w, 3) uint8.

    Raises:
        InputError: the environment is unknown, its package is missing, or it shows no pixels.
    """
    env = _make_plain(preset, render_mode=None)
    if not observes_pixels(env, preset.pixels_key):
        env = _with_rendering(env, preset)
    if preset.skip_first:
        env = SkipFirst(env, preset.skip_first)
    if preset.action_repeat > 1:
        env = ActionRepeat(env, preset.action_repeat)
    if preset.wrap is not None:
        env = preset.wrap(env)
    return PixelFrames(env, preset.pixels_key)


def as_recorded(meta: StoreMeta, hold: int = 1) -> gymnasium.Env:
    """The environment of a store as an agent of its dream meets it: frames of the stored size, with the recording's
    action repeat and skipped steps.

    Args:
        meta: of the store.
        hold: recorded steps for which an action is held: the time stride of the world model.

    Raises:
        InputError: the environment is not installed, or has other actions than those that were recorded.
    """
    preset = replace(resolve(meta.env_id), action_repeat=meta.action_repeat, skip_first=meta.skip_first)
    env = make(preset)
    found = ActionSpace.from_gymnasium(env.action_space)
    if found != meta.action_space:
        env.close()
        raise InputError(
            f"{meta.env_id} takes actions in {found} here, the store was recorded with {meta.action_space}: install "
            "the version that recorded it, or record again"
        )
    return ResizedFrames(ActionRepeat(env, hold) if hold > 1 else env, meta.frame_size)


def _with_rendering(env: gymnasium.Env, preset: Preset) -> gymnasium.Env:
    modes = env.metadata.get("render_modes") or []
    observes = env.observation_space
    env.close()
    if "rgb_array" not in modes:
        raise InputError(
            f"{preset.env_id} observes {observes}, which is no picture, and cannot draw one: "
            f"its render modes are {list(modes)}, and 'rgb_array' is needed. "
            "Record an environment that renders, or wrap this one so that it observes (h, w, 3) uint8."
        )
    return _make_plain(preset, render_mode="rgb_array")


def _make_plain(preset: Preset, render_mode: str | None) -> gymnasium.Env:
    kwargs = dict(preset.kwargs) if render_mode is None else {**preset.kwargs, "render_mode": render_mode}
    try:
        # Gymnasium's passive checker warns where the recorder raises its own errors.
        return gymnasium.make(preset.env_id, disable_env_checker=True, **kwargs)
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise _missing(preset.env_id, preset.extra, error) from error
    except gymnasium.error.UnregisteredEnv as error:
        raise InputError(f"no environment is called {preset.env_id!r}: {_hint(preset.env_id)}") from error
    except TypeError as error:
        raise InputError(f"{preset.env_id} could not be made with {kwargs}: {error}") from error


def _missing(name: str, extra: str | None, error: Exception) -> InputError:
    if extra is None:
        return InputError(f"a package that {name} needs is not installed: {error}. Install it with pip and try again.")
    return MissingExtraError(f"{name} is not installed: {error}", extra)


def _hint(name: str) -> str:
    hint = suggest(name, {*PRESETS, *gymnasium.registry})
    return hint or f"presets are {', '.join(PRESETS)}; `gymnasium.pprint_registry()` lists all other ids."
