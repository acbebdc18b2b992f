"""highway-env: drawn without a screen too, and actions by name."""

from __future__ import annotations

from typing import Any

import gymnasium


class Drawn(gymnasium.Wrapper):
    """Draws under SDL's dummy driver, for which the viewer leaves its pictures black."""

    def render(self) -> Any:
        inner: Any = self.unwrapped
        frame = self.env.render()
        if inner.viewer is None or inner.viewer.enabled:
            return frame
        inner.viewer.enabled = True
        return self.env.render()


def named_actions(env: gymnasium.Env) -> dict[str, tuple[float, ...]]:
    """lane_left, idle, lane_right, faster, slower; none of continuous actions."""
    inner: Any = env.unwrapped
    if not isinstance(env.action_space, gymnasium.spaces.Discrete):
        return {}
    return {name.lower(): (float(i),) for i, name in inner.action_type.actions.items()}
