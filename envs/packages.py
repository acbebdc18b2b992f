"""Which package brings an environment, by its usual name: a row for each family of environments.

Only the package of the name that was asked for is ever imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from dataclasses import dataclass
from functools import cache

import gymnasium

from vqvideo.envs.places import place_of
from vqvideo.errors import InputError, MissingExtraError


@dataclass(frozen=True)
class Package:
    """A package, and the names of its environments."""

    ids: str
    """Regular expression of what its ids begin with, in any case of letters."""
    module: str
    """What registers them when it is imported, or when `setup` is called."""
    install: str
    """What to give to `pip install`."""
    example: str
    """One of its ids."""
    setup: str = ""
    """A function "module:name" to be called once after the import, which registers the ids where that does not."""
    needs: tuple[str, ...] = ()
    """Other modules without which it registers nothing."""
    builtin: bool = False
    """Whether Gymnasium itself registers the ids, and needs the package to make them."""
    opengl: bool = False
    """Whether it draws with MuJoCo, and so needs OpenGL."""

    def matches(self, env_id: str) -> bool:
        """Whether an id has the form of those of this package."""
        return re.match(self.ids, env_id, re.IGNORECASE) is not None

    def load(self, env_id: str) -> None:
        """Imports it, so that its environments are registered.

        Args:
            env_id: the environment that is wanted, for messages.

        Raises:
            InputError: it is not installed, or cannot be imported.
        """
        for module in (self.module.partition(".")[0], *self.needs):
            if not _installed(module):
                raise self.missing(f"{env_id} needs the package {module}, which is not installed")
        try:
            importlib.import_module(self.module)
            if self.setup:
                _call(self.setup)
        # Whatever it raises: a package can be broken in any way, and the user needs to know which one is.
        except Exception as error:
            raise InputError(
                f"{self.module}, which brings {env_id}, is installed but cannot be imported: "
                f"{type(error).__name__}: {error}{place_of(error)}. "
                + (opengl_hint() if self.opengl else f"Install it anew: pip install --force-reinstall {self.quoted}")
            ) from error

    def missing(self, what: str) -> InputError:
        """The error for what is missing, with the command that installs it."""
        extra = re.fullmatch(r"vqvideo\[(\w+)\]", self.install)
        return MissingExtraError(what, extra[1]) if extra else InputError(f"{what}: pip install {self.quoted}")

    @property
    def quoted(self) -> str:
        """What to install, as a shell takes it."""
        return f"'{self.install}'" if "[" in self.install else self.install


_MUJOCO = "Ant|HalfCheetah|Hopper|Walker2d|Humanoid|HumanoidStandup|Swimmer|Reacher|Pusher|Inverted(Double)?Pendulum"
_HIGHWAY = "highway|merge|roundabout|parking|intersection|racetrack|exit|two-way|u-turn|lane-keeping"
_ROBOTICS = "Fetch(Reach|Push|Slide|PickAndPlace)|Hand(Reach|Manipulate)|(Point|Ant)Maze|AdroitHand|FrankaKitchen"

PACKAGES = (
    Package(r"ALE/|\w+(NoFrameskip|Deterministic)-v", "ale_py", "vqvideo[atari]", "ALE/Pong-v5"),
    Package(r"(MiniGrid|BabyAI)-", "minigrid", "vqvideo[minigrid]", "MiniGrid-Empty-5x5-v0"),
    Package(r"MinAtar/", "minatar", "vqvideo[minatar]", "MinAtar/Breakout-v1", setup="minatar.gym:register_envs"),
    Package(
        rf"({_MUJOCO})-v",
        "mujoco",
        "vqvideo[mujoco]",
        "Ant-v5",
        setup="vqvideo.envs.mujoco:log_warnings",
        needs=("imageio",),
        builtin=True,
        opengl=True,
    ),
    Package(
        r"dm_control/",
        "shimmy",
        "shimmy[dm-control]",
        "dm_control/cheetah-run-v0",
        needs=("dm_control", "imageio", "h5py"),
        opengl=True,
    ),
    Package(
        r"Meta-?World/",
        "metaworld",
        "metaworld",
        "Meta-World/reach-v3",
        setup="vqvideo.envs.meta_world:register_tasks",
        opengl=True,
    ),
    Package(rf"({_ROBOTICS})", "gymnasium_robotics", "gymnasium-robotics", "FetchReach-v4", opengl=True),
    Package(r"Vizdoom\w+-", "vizdoom.gymnasium_wrapper", "vqvideo[doom]", "VizdoomBasic-v1"),
    Package(rf"({_HIGHWAY})-", "highway_env", "highway-env", "highway-v0"),
    Package(r"procgen(_gym/|-)", "procgen_gym", "procgen-gym", "procgen_gym/procgen-coinrun-v0"),
    Package(r"Craftium/", "craftium", "git+https://github.com/mikelma/craftium", "Craftium/ChopTree-v0"),
)


def package_of(env_id: str) -> Package | None:
    """The package whose environments are called like this; None for "module:id", which says itself where it is from."""
    if ":" in env_id:
        return None
    return next((package for package in PACKAGES if package.matches(env_id)), None)


def registered(package: Package) -> list[str]:
    """The ids of a package that are registered by now."""
    return [env_id for env_id in gymnasium.registry if package.matches(env_id)]


def opengl_hint() -> str:
    """What to do where MuJoCo cannot draw."""
    chosen = os.environ.get("MUJOCO_GL")
    return (
        "Drawing without a screen takes MUJOCO_GL=egl (a GPU, or Mesa: apt-get install libegl1 libgl1) or "
        "MUJOCO_GL=osmesa (apt-get install libosmesa6) before the command; "
        + (f"here it is MUJOCO_GL={chosen}" if chosen else "here it is not set")
    )


def _installed(module: str) -> bool:
    """Folders of that name are no packages."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


@cache
def _call(function: str) -> None:
    """Once: Gymnasium warns of ids that are registered again."""
    module, _, name = function.partition(":")
    getattr(importlib.import_module(module), name)()
