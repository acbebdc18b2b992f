"""How an environment is made, recorded and played."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium

from vqvideo.envs.faults import Fault
from vqvideo.errors import at_least

DRAWN: Literal["drawn"] = "drawn"
SHAPED: Literal["shaped"] = "shaped"


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
    best: str | None = None
    """The policy that nobody plays better than, where there is one."""
    pixels: str | None = None
    """Where the frames come from, as `vqvideo.envs.pixels.choose` takes it; None: a picture that the environment
    observes, or else what it renders.
    """
    fps: float | None = None
    """Env steps per second of real time; None: what the environment's metadata says."""
    actions: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Constant actions by name, as flat vectors: what "steer left" means here."""
    extra: str | None = None
    """The extra of `vqvideo` that installs this environment, where `envs.packages` does not know: `pip install
    'vqvideo[extra]'`.
    """
    wrap: Callable[[gymnasium.Env], gymnasium.Env] | None = None
    """A wrapper of this environment's own, put around action repeat."""
    inner: Callable[[gymnasium.Env], gymnasium.Env] | None = None
    """A wrapper of this environment's own that sees every env step, put below action repeat."""
    name_actions: Callable[[gymnasium.Env], Mapping[str, tuple[float, ...]]] | None = None
    """Reads `actions` from the environment, where they differ within a family."""
    faults: tuple[type[Fault], ...] = ()
    """What can go wrong in this environment alone, beside the faults of all."""
    frame_size: Literal["drawn", "shaped"] | None = None
    """Of the stored frames, where the user names none. DRAWN: as they come, which keeps cells crisp; SHAPED: in their
    shape, with about as many pixels as 64 x 64; None: 64 x 64.
    """

    def __post_init__(self) -> None:
        at_least(self, "--", action_repeat=1, skip_first=0)
