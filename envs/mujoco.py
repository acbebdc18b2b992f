"""Environments that draw with MuJoCo: small pictures at a small price, and actions by name."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium
import numpy as np

log = logging.getLogger(__name__)
LARGE = 256
"""Pictures of more pixels to a side are drawn as they come."""
SHADOW = 1024
"""Side of the map of shadows in pixels."""


def log_warnings() -> None:
    """Sends MuJoCo's warnings to the log, in place of a file in the current folder.

    Raises:
        ImportError: mujoco is not installed.
    """
    import mujoco

    mujoco.set_mju_user_warning(lambda message: log.debug("MuJoCo: %s", message))


class Drawn(gymnasium.Wrapper):
    """Draws in the environment's own OpenGL context, so that several can be in one process, and with a map of shadows
    that is as fine as small pictures need: without a GPU the usual one of 4096 x 4096 takes most of a step's time.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        inner: Any = env.unwrapped
        if max(getattr(inner, name, LARGE + 1) for name in ("width", "height")) <= LARGE:
            inner.model.vis.quality.shadowsize = min(inner.model.vis.quality.shadowsize, SHADOW)

    def render(self) -> Any:
        self._enter_context()
        return self.env.render()

    def close(self) -> None:
        viewer = self._enter_context()
        if viewer is not None:
            # Left to the garbage collector, what is in this context would be freed in the one that is current then.
            viewer.con.free()
        self.env.close()

    def _enter_context(self) -> Any:
        """Makes the context current, and returns the viewer that it belongs to; None as long as nothing was drawn."""
        viewer = getattr(getattr(self.unwrapped, "mujoco_renderer", None), "viewer", None)
        if viewer is not None:
            viewer.make_context_current()
        return viewer


def named_actions(env: gymnasium.Env) -> dict[str, tuple[float, ...]]:
    """still, and each motor alone at its upper and lower end: bthigh+, bthigh-, ... A motor without a name has that of
    its joint.
    """
    inner: Any = env.unwrapped
    space: Any = env.action_space
    model, still = inner.model, np.zeros(space.shape)
    named = {"still": still}
    for motor in range(model.nu):
        name = model.actuator(motor).name or model.joint(model.actuator_trnid[motor, 0]).name
        for sign, end in (("+", space.high), ("-", space.low)):
            named[f"{name}{sign}"] = np.where(np.arange(model.nu) == motor, end, still)
    return {name: tuple(action.tolist()) for name, action in named.items()}
