"""Meta-World's tasks by their names: Meta-World/reach-v3 for its MT1 with env_name=reach-v3."""

from __future__ import annotations

from typing import Any

import gymnasium


def register_tasks() -> None:
    """Registers every task of Meta-World under its own name.

    Raises:
        ImportError: metaworld is not installed.
    """
    import metaworld

    for task in metaworld.ALL_V3_ENVIRONMENTS:
        gymnasium.register(
            f"Meta-World/{task}", entry_point="vqvideo.envs.meta_world:make_task", kwargs={"env_name": task}
        )


def make_task(env_name: str, **kwargs: Any) -> gymnasium.Env:
    """The environment of one task."""
    return gymnasium.make("Meta-World/MT1", env_name=env_name, disable_env_checker=True, **kwargs)
