"""Real environments: `make` for presets and for any Gymnasium id, `as_recorded` for a store's.

Scripts and tests import this package as `vqvideo.envs`; the library itself knows no environment.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

# SDL reads these once, when pygame is loaded, and without a display its default driver fails.
if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    # As does MuJoCo's, which reads this when it is imported.
    os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import gymnasium

from vqvideo.envs.api import OLD_API, hold_to_api
from vqvideo.envs.modules import find_spec
from vqvideo.envs.packages import opengl_hint, package_of
from vqvideo.envs.pixels import RENDER, UNSAID, PixelFrames, choose
from vqvideo.envs.places import place_of
from vqvideo.envs.preset import Preset
from vqvideo.envs.presets import PRESETS, name_of, resolve, unknown
from vqvideo.envs.wrappers import ActionRepeat, ResizedFrames, SkipFirst
from vqvideo.errors import InputError, MissingExtraError
from vqvideo.spaces import ActionSpace
from vqvideo.storage.files import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqvideo.data.index import StoreMeta

__all__ = ["PRESETS", "Preset", "as_recorded", "find_spec", "make", "name_of", "named_actions", "resolve"]


def make(preset: Preset) -> PixelFrames:
    """The preset's environment, whose observation is the frame, (h, w, 3) uint8.

    Raises:
        InputError: the environment is unknown, its package is missing, it shows no pixels, or keeps to another API.
    """
    env = _make_plain(preset, render_mode=None)
    source = choose(env, preset.pixels)
    if source.name == RENDER:
        env = _with_rendering(env, preset, source.note)
    if preset.skip_first:
        env = SkipFirst(env, preset.skip_first)
    if preset.action_repeat > 1:
        env = ActionRepeat(env, preset.action_repeat)
    if preset.wrap is not None:
        env = preset.wrap(env)
    return _with_frames(env, preset)


def as_recorded(meta: StoreMeta, hold: int = 1) -> gymnasium.Env:
    """The environment of a store as an agent of its dream meets it: frames of the stored size, with the recording's
    constructor arguments, source of pixels, action repeat and skipped steps.

    Args:
        meta: of the store.
        hold: recorded steps for which an action is held: the time stride of the world model.

    Raises:
        InputError: the environment is not installed, has other actions than those that were recorded, or there is none:
            the episodes were imported.
    """
    if meta.imported:
        raise InputError(
            f"the episodes of {meta.env_id} were imported from {meta.imported}: there is no environment that an agent "
            "could play"
        )
    known = resolve(meta.env_id)
    preset = replace(
        known,
        kwargs=_recorded_kwargs(meta, known),
        pixels=meta.pixels or known.pixels or UNSAID,
        action_repeat=meta.action_repeat,
        skip_first=meta.skip_first,
    )
    env: gymnasium.Env = make(preset)
    found = ActionSpace.from_gymnasium(env.action_space)
    if found != meta.action_space:
        env.close()
        raise InputError(
            f"{meta.env_id} takes actions in {found} here, the store was recorded with {meta.action_space}: install "
            "the version that recorded it, or record again"
        )
    return ResizedFrames(ActionRepeat(env, hold) if hold > 1 else env, meta.frame_size)


def named_actions(env_id: str, space: ActionSpace) -> Mapping[str, tuple[float, ...]]:
    """Constant actions by name, as flat vectors; none for an environment that has none, or has other actions here.

    Args:
        env_id: a preset or an id.
        space: what the actions are to be in.

    Raises:
        InputError: the environment is unknown or not installed.
    """
    preset = resolve(env_id)
    if preset.name_actions is None:
        return preset.actions
    env = _make_plain(preset, render_mode=None)
    try:
        here = ActionSpace.from_gymnasium(env.action_space)
        return preset.name_actions(env) if here == space else {}
    finally:
        env.close()


def _recorded_kwargs(meta: StoreMeta, known: Preset) -> dict[str, Any]:
    """What the constructor was given when the store was recorded: a preset may have changed since."""
    spec = parse_json(meta.env_spec.encode(), "env_spec") if meta.env_spec else None
    then = spec.get("kwargs", {}) if isinstance(spec, dict) else known.kwargs
    return {**{name: then[name] for name in known.kwargs if name in then}, **meta.env_kwargs}


def _with_frames(env: gymnasium.Env, preset: Preset) -> PixelFrames:
    package = package_of(preset.env_id)
    try:
        return PixelFrames(env, preset.pixels)
    except Exception as error:
        env.close()
        if isinstance(error, InputError) or not (package and package.opengl):
            raise
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"{preset.env_id} cannot draw a frame: {what}. {opengl_hint()}") from error


def _with_rendering(env: gymnasium.Env, preset: Preset, note: str) -> gymnasium.Env:
    modes = env.metadata.get("render_modes") or []
    observes = env.observation_space
    env.close()
    if "rgb_array" not in modes:
        old = f" {OLD_API}" if "render.modes" in env.metadata else ""
        raise InputError(
            f"{preset.env_id} observes {observes!s:.200}, which is no picture, and cannot draw one: "
            f"its render modes are {list(modes)}, and 'rgb_array' is needed. "
            f"Record an environment that renders, or wrap this one so that it observes (h, w, 3) uint8.{old}"
            + (f" ({note})" if note else "")
        )
    return _make_plain(preset, render_mode="rgb_array")


def _make_plain(preset: Preset, render_mode: str | None) -> gymnasium.Env:
    kwargs = dict(preset.kwargs) if render_mode is None else {**preset.kwargs, "render_mode": render_mode}
    package = package_of(preset.env_id)
    if package and package.builtin:
        package.load(preset.env_id)
    try:
        # Gymnasium's passive checker warns where the recorder raises its own errors.
        env = gymnasium.make(find_spec(preset.env_id), disable_env_checker=True, **kwargs)
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise _missing(preset, error) from error
    except gymnasium.error.UnregisteredEnv as error:
        raise unknown(preset.env_id) from error
    except InputError as error:
        if preset.extra and isinstance(error.__cause__, ImportError):
            raise _missing(preset, error.__cause__) from error
        raise
    # What constructors raise for arguments that they do not know or do not like.
    except (TypeError, ValueError, LookupError, AttributeError, AssertionError, gymnasium.error.Error) as error:
        cause = error.__cause__ or error
        what = f"{type(cause).__name__}: {cause}{place_of(cause)}"
        raise InputError(f"{preset.env_id} could not be made with {kwargs}: {what}") from error
    env = hold_to_api(env)
    return preset.inner(env) if preset.inner else env


def _missing(preset: Preset, error: Exception) -> InputError:
    if preset.extra is not None:
        return MissingExtraError(f"{preset.env_id} is not installed: {error}", preset.extra)
    if package := package_of(preset.env_id):
        return package.missing(f"{preset.env_id} lacks a package that it needs: {error}")
    return InputError(
        f"a package that {preset.env_id} needs is not installed: {error}{place_of(error)}. Install it with pip and try "
        "again."
    )
