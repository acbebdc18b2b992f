"""The dream as a single `gymnasium.Env`."""

from __future__ import annotations

from typing import Any

import gymnasium
import torch
from gymnasium.vector import AutoresetMode

from vqvideo.imagined_env.actions import in_numpy
from vqvideo.imagined_env.starts import StartsLike
from vqvideo.imagined_env.vector import RENDER_MODES, ImaginedVectorEnv
from vqvideo.models.given import checked_seed
from vqvideo.models.imagination import Imaginer


class ImaginedEnv(gymnasium.Env[Any, Any]):
    """One imagined environment: an `ImaginedVectorEnv` of one, without its batch.

    Args:
        world: the model.
        starts: where episodes begin.
        options: as of `ImaginedVectorEnv`.

    Example:
        >>> env = gymnasium.make("vqvideo/Imagined-v0", world="carracing", horizon=50)
        >>> observation, info = env.reset(seed=0)
    """

    metadata = {"render_modes": [*RENDER_MODES]}  # noqa: RUF012

    def __init__(self, world: Imaginer, starts: StartsLike, **options: Any) -> None:
        self.vector = ImaginedVectorEnv(world, starts, 1, autoreset_mode=AutoresetMode.DISABLED, **options)
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space
        self.render_mode = self.vector.render_mode
        self.metadata = {**self.metadata, "render_fps": self.vector.metadata["render_fps"]}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode; see `ImaginedVectorEnv.reset`."""
        seed = None if seed is None else checked_seed(seed)
        super().reset(seed=seed)
        observations, infos = self.vector.reset(seed=seed, options=options)
        return observations[0], _own(infos)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One latent step; see `ImaginedVectorEnv.step`."""
        flat = torch.from_numpy(self.vector.world.action_space.flatten(in_numpy(action)))
        observations, rewards, terminated, truncated, infos = self.vector.step_flat(
            flat[None].to(self.vector.world.device, torch.float32)
        )
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _own(infos)

    def render(self) -> Any:
        """The newest frame, (h, w, 3) uint8; None without a render mode, or where a window shows it."""
        frames = self.vector.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Closes the window of render_mode="human"."""
        self.vector.close()


def _own(infos: dict[str, Any]) -> dict[str, Any]:
    """The only row of each entry."""
    return {name: values[0] for name, values in infos.items() if not name.startswith("_")}
