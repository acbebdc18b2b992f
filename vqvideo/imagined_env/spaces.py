"""Whether a dream and a real environment are the same to an agent."""

from __future__ import annotations

import gymnasium

from vqvideo.errors import InputError
from vqvideo.models.imagination import Imaginer
from vqvideo.spaces import ActionSpace


def check_same_spaces(world: Imaginer, env: gymnasium.Env) -> None:
    """Raises InputError unless observations and actions of a real environment are those of the world's dream."""
    expected = (*world.vqvae.frame_size, 3)
    if env.observation_space.shape != expected:
        raise InputError(
            f"the environment shows {env.observation_space}, the world dreams frames of {expected} (h, w, 3): give one "
            "that shows them, such as vqvideo.envs.as_recorded(store.meta)"
        )
    found = ActionSpace.from_gymnasium(env.action_space)
    if found != world.action_space:
        raise InputError(
            f"the environment takes actions in {found}, the world was trained on {world.action_space}: give the "
            "environment that was recorded"
        )
