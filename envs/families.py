"""How whole families of environments are recorded: one preset for each package, whatever the environment."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vqvideo.envs import atari, doom, highway, min_atar, mini_grid, mujoco
from vqvideo.envs.packages import Package
from vqvideo.envs.preset import DRAWN, SHAPED, Preset

_SQUARE = {"width": 128, "height": 128}
"""What is drawn, for frames of about half the side: MuJoCo's 480 cost many times as much, and end as the same."""


def _mujoco(env_id: str) -> Preset:
    """Of one of Gymnasium's MuJoCo environments."""
    name = env_id.partition("-")[0]
    falls = name in ("Ant", "Hopper", "Humanoid", "Walker2d")
    return Preset(
        env_id,
        # To random actions these fall within a second: on the ground they go on, and so do their rewards.
        kwargs={**_SQUARE, **({"terminate_when_unhealthy": False} if falls else {})},
        # Towards 25 frames per second: steps of most are 0.04 to 0.05 s.
        action_repeat={"Hopper": 5, "Walker2d": 5, "Humanoid": 3, "HumanoidStandup": 3, "Reacher": 2}.get(name, 1),
        policy="smooth",
        frame_size=SHAPED,
        inner=mujoco.Drawn,
        name_actions=mujoco.named_actions,
    )


FAMILIES: dict[str, Callable[[str], Preset]] = {
    "ale_py": partial(
        Preset,
        # Every frame is seen, to show two as one against flicker. Sticky actions are for judging agents: here what is
        # recorded as the action is to be what was pressed.
        kwargs={"frameskip": 1, "repeat_action_probability": 0.0},
        action_repeat=4,
        # Before the first frames of some games come those of a title in other colours.
        skip_first=4,
        fps=60.0,
        policy="arcade",
        frame_size=SHAPED,
        inner=atari.LastTwo,
        name_actions=atari.named_actions,
    ),
    "minigrid": partial(
        Preset,
        # Tiles are the tokens of an 8-pixel patch, and the whole board is equally bright.
        kwargs={"tile_size": 8, "highlight": False},
        policy="wander",
        frame_size=DRAWN,
        name_actions=mini_grid.named_actions,
    ),
    "minatar": partial(
        Preset,
        kwargs={"sticky_action_prob": 0.0},
        fps=10.0,
        policy="minatar",
        frame_size=DRAWN,
        inner=min_atar.Cells,
        name_actions=min_atar.named_actions,
    ),
    "mujoco": _mujoco,
    "shimmy": partial(
        Preset,
        kwargs={"render_kwargs": {**_SQUARE, "camera_id": 0}},
        action_repeat=2,
        policy="smooth",
        frame_size=SHAPED,
    ),
    "metaworld": partial(
        Preset, kwargs=_SQUARE, action_repeat=2, policy="smooth", frame_size=SHAPED, inner=mujoco.Drawn
    ),
    "gymnasium_robotics": partial(Preset, kwargs=_SQUARE, policy="smooth", frame_size=SHAPED, inner=mujoco.Drawn),
    "vizdoom.gymnasium_wrapper": partial(
        Preset,
        action_repeat=4,
        pixels="screen",
        fps=35.0,
        frame_size=SHAPED,
        inner=doom.in_scratch_folder,
        name_actions=doom.named_actions,
    ),
    "highway_env": partial(
        Preset,
        # One decision per second makes films in which cars jump.
        kwargs={"config": {"policy_frequency": 5}},
        fps=5.0,
        frame_size=SHAPED,
        inner=highway.Drawn,
        name_actions=highway.named_actions,
    ),
}
"""By the module of the package. Environments of other packages are recorded as they come."""


def preset_of(package: Package | None, env_id: str) -> Preset:
    """The preset of an environment that has none of its own.

    Args:
        package: what brings it, if that is known.
        env_id: its id.
    """
    family = FAMILIES.get(package.module) if package else None
    return family(env_id) if family else Preset(env_id)
