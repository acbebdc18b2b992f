"""The dream as `gymnasium.vector.VectorEnv`: an agent's code runs on it as on the real environment.

One step is one latent step of the world model: with temporal stride s the action is held for s frames, as frame skip
does, the rewards add up, the observation is the last frame and all s frames are in `info`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from vqvideo.errors import InputError, whole
from vqvideo.imagined_env.actions import NativeActions
from vqvideo.imagined_env.batch import DreamBatch, RewardFunction
from vqvideo.imagined_env.cut import checked_thresholds
from vqvideo.imagined_env.infos import as_arrays, final_infos_of, infos_of
from vqvideo.imagined_env.rows import Rows
from vqvideo.imagined_env.sights import sight
from vqvideo.imagined_env.starts import StartsLike, given_starts, read_starts
from vqvideo.imagined_env.window import Window
from vqvideo.models.given import as_tensor, checked_seed
from vqvideo.models.imagination import Imaginer, checked_sampling
from vqvideo.models.prior.sampling import Sampling
from vqvideo.models.rows import wrapped

RENDER_MODES = ("human", "rgb_array")
_OPTIONS = ("reset_mask", "frames", "actions")


class NotResetError(InputError, gymnasium.error.ResetNeeded):
    """A step without a reset before it."""


class ImaginedVectorEnv(VectorEnv[Any, Any, Any]):
    """A batch of imagined environments with the spaces of the recorded one.

    `info` of a step: `frames` (n, s, h, w, 3), all frames of the step; `entropy` (n,), mean entropy of the tokens in
    nats, high where the model is unsure; `termination` (n,), the probability that `terminated` was drawn from;
    `outcome_entropy` (n,), how unsure the model is of reward and end, in nats (exported worlds do not tell it); with
    `cut_above`, `cut` (n,), whether the episode was truncated because of these figures. `info` of a reset: `start`
    (n,), number of the clip that the episode begins with. Every entry has its mask, `_frames` (n,) and so on, as in
    Gymnasium's own vector environments.

    Seeds: env i is seeded with seed + i and has random numbers of its own. Equal seeds give equal episodes bit by
    bit, and env i the episodes that a single env of that seed would give (up to rounding).

    Args:
        world: the model.
        starts: where episodes begin: a store (or its folder), of whose training episodes contexts are taken; `Clips`;
            arrays of one's own, frames (r, t, h, w, 3) or a pair (frames, flat actions (r, t - 1, a)); or `Starts`.
        num_envs: n.
        horizon: latent steps after which an episode is truncated; math.inf for none.
        context: latent steps that a dream has seen when it begins.
        max_starts: how many contexts to take at most; they are read once and kept.
        autoreset_mode: what happens after an episode's end: NEXT_STEP, SAME_STEP or DISABLED.
        sampling: how codes are drawn; by default as the world was trained for.
        cut_above: figures of a step, `entropy` or `outcome_entropy`, above which the episode is truncated: beyond, the
            model would be guessing. `cut_thresholds` reads them off recorded episodes.
        reward: replaces the model's own reward, which is 0, with a warning, if every recorded one is.
        observe: "frames", or "codes": observations are the codes (h, w) int64 of the newest latent step. No frame is
            decoded, so none is in the infos, in what `reward` gets, or shown.
        output: "numpy", or "torch": tensors on the device of the model. Actions that are tensors there stay there too,
            and a step waits for the device twice: to know whether actions are valid, and which episodes are over.
        render_mode: None; "rgb_array"; or "human": a window shows env 0, all frames of its steps in their time.

    Raises:
        InputError: starts of other frames or actions, or too short for the context; an unknown mode or output; no
            pygame for a window.

    Example:
        >>> envs = world.as_env(16, starts="data/car_racing", horizon=50)
        >>> observations, infos = envs.reset(seed=0)
        >>> observations, rewards, terminated, truncated, infos = envs.step(envs.action_space.sample())
    """

    def __init__(
        self,
        world: Imaginer,
        starts: StartsLike,
        num_envs: int = 1,
        *,
        horizon: float = 64,
        context: int = 1,
        max_starts: int = 512,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        sampling: Sampling | None = None,
        cut_above: Mapping[str, float] | None = None,
        reward: RewardFunction | None = None,
        observe: str = "frames",
        output: str = "numpy",
        render_mode: str | None = None,
    ) -> None:
        self.autoreset_mode = _mode(autoreset_mode)
        if output not in ("numpy", "torch"):
            raise InputError(f"output is {output!r}, expected one of numpy, torch")
        if render_mode not in (None, *RENDER_MODES):
            raise InputError(f"render_mode is {render_mode!r}, expected None or one of {', '.join(RENDER_MODES)}")
        if observe == "codes" and render_mode is not None:
            raise InputError(f"render_mode is {render_mode!r}, but of codes nothing is drawn: take observe='frames'")
        seen = sight(world, observe)
        self._window = Window(world.env.fps) if render_mode == "human" else None
        num_envs = whole(num_envs, "num_envs")
        read = read_starts(world, starts, context, max_starts)
        self.world, self.num_envs, self.render_mode, self.output = world, num_envs, render_mode, output
        cut = checked_thresholds(cut_above)
        self.dreams = DreamBatch(
            world, read, num_envs, horizon, checked_sampling(sampling, world.sampling), reward, seen, cut
        )
        self.single_observation_space = seen.space
        self.single_action_space = world.action_space.native()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._actions = NativeActions(world.action_space, num_envs, world.device)
        self.metadata = {
            "render_modes": [*RENDER_MODES],
            # Whole, because Gymnasium's `play` takes no other.
            "render_fps": max(1, round(world.env.fps / world.stride)),
            "autoreset_mode": self.autoreset_mode,
        }
        self._over = Rows.of(np.zeros(num_envs, bool), world.device)
        """Episodes that have ended and not begun anew."""

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins episodes.

        Args:
            seed: env i gets seed + i, or item i of a list, numbers of 64 bits; None goes on with the random numbers at
                hand.
            options: `reset_mask` (n,) bool: only these; `frames` and `actions`: contexts of one's own instead of the
                recorded ones, (r, t, h, w, 3) uint8 and flat (r, t - 1, a) for the r envs that begin, or one for all.
        """
        options = dict(options or {})
        if unknown := [name for name in options if name not in _OPTIONS]:
            raise InputError(f"reset option {unknown[0]!r} is unknown, expected one of {', '.join(_OPTIONS)}")
        if "actions" in options and "frames" not in options:
            raise InputError("reset option 'actions' without 'frames': give the frames between which they were taken")
        rows = self._reset_rows(options)
        starts = given_starts(self.world, options, int(rows.host.sum())) if "frames" in options else None
        self._seed(rows, seed)
        if options.get("reset_mask") is None:
            self.dreams.forget()
        infos = infos_of({"start": self.dreams.begin(rows, starts)}, rows)
        self._over = Rows(self._over.mask & ~rows.mask, self._over.host & ~rows.host)
        self._show(self.dreams.newest[:1])
        observations = self._observations()
        return (observations, infos) if self.output == "torch" else (as_arrays(observations), as_arrays(infos))

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One latent step of all envs under native actions (n, ...), numpy or torch.

        Returns:
            Observations (n, h, w, 3) uint8 (or codes (n, h, w) int64), rewards (n,), terminated (n,), truncated (n,),
            infos.

        Raises:
            NotResetError: there was no reset before, or, with autoreset disabled, an env is over.
            InputError: an action is not in its space; names the env. Nothing has happened then.
            DivergedError: a reward, or what the model gives, is not finite; names the env and its step. It is an
                InputError, and a reset begins anew.
        """
        return self.step_flat(self._actions.flat(actions, ~self._beginning()))

    def step_flat(self, flat: Tensor) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """As `step`, under flat actions (n, a) float32 on the device that are known to be in their space.

        For those who have checked them: `ImaginedEnv` names no env in its errors, and nothing is checked twice.
        """
        beginning = self._beginning()
        if beginning.all():
            return self._all_begin()
        going = ~beginning
        result = self.dreams.step(flat, going)
        terminated, truncated = result.terminated & going.mask, result.truncated & going.mask
        # The one wait of a step: from here on the host knows all that it decides by.
        over, diverged = Rows.read_all(torch.stack([terminated | truncated, result.diverged & going.mask]))
        if diverged.any():
            raise self.dreams.divergence(result, int(diverged.host.argmax()))
        rewards = result.reward
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            # The observation is the first of the next episode already: the last one of this goes into the infos.
            infos = final_infos_of(self.dreams.newest, result.info, over) | infos_of(result.info, ~over)
            beginning = over
        else:
            # A row that begins anew in this step has taken no action, and so earns nothing.
            rewards, infos = rewards.masked_fill(~going.mask, 0), infos_of(result.info, going)
            self._over = over
        if beginning.any():
            infos |= infos_of({"start": self.dreams.begin(beginning)}, beginning)
        self._show(result.info["frames"][0] if self._window and going.host[0] else self.dreams.newest[:1])
        return self._results(rewards, terminated, truncated, infos)

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """The newest frame of each env, (h, w, 3) uint8; None without a render mode, or where a window shows them."""
        if self.render_mode != "rgb_array":
            return None
        if not self.dreams.begun:
            raise NotResetError("render was called before reset: call reset first")
        return tuple(np.ascontiguousarray(self.dreams.newest.cpu().numpy()))

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the window."""
        if self._window is not None:
            self._window.close()

    def _show(self, frames: Tensor) -> None:
        """Shows frames (t, h, w, 3) in the window, if there is one."""
        if self._window is not None:
            self._window.show(frames.cpu().numpy())

    def _observations(self) -> Tensor:
        # A copy: Gymnasium's wrappers write into observations, and these frames are needed again.
        return self.dreams.newest.clone(memory_format=torch.contiguous_format)

    def _results(
        self, rewards: Tensor, terminated: Tensor, truncated: Tensor, infos: dict[str, Any]
    ) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        results = self._observations(), rewards, terminated, truncated, infos
        if self.output == "torch":
            return results
        observations, rewards_, terminated_, truncated_, infos = map(as_arrays, results)
        # Gymnasium's own vector environments give float64.
        return observations, rewards_.astype(np.float64), terminated_, truncated_, infos

    # ------------------------------------------------------------ resets

    def _beginning(self) -> Rows:
        """The envs which this step begins anew instead of going on."""
        if not self.dreams.begun:
            raise NotResetError("step was called before reset: call reset first")
        if self.autoreset_mode == AutoresetMode.DISABLED and self._over.any():
            raise NotResetError(
                f"env {', '.join(map(str, np.flatnonzero(self._over.host)))}: the episode is over and autoreset is "
                "disabled: call reset(options={'reset_mask': terminated | truncated}) first"
            )
        return self._over

    def _all_begin(self) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """A step in which every env begins anew: nothing is imagined."""
        self.dreams.tick()
        infos = infos_of({"start": self.dreams.begin(self._over)}, self._over)
        self._show(self.dreams.newest[:1])
        self._over = Rows(torch.zeros_like(self._over.mask), np.zeros_like(self._over.host))
        nothing = torch.zeros(self.num_envs, device=self.world.device)
        return self._results(nothing, nothing.bool(), nothing.bool(), infos)

    def _reset_rows(self, options: dict[str, Any]) -> Rows:
        """Which envs a reset is about."""
        mask = options.get("reset_mask")
        if mask is None:
            return Rows.of(np.ones(self.num_envs, bool), self.world.device)
        rows = as_tensor(mask, "options['reset_mask']", f"bool of shape ({self.num_envs},)")
        host = rows.cpu().numpy().copy()
        if rows.shape != (self.num_envs,) or rows.dtype != torch.bool or not host.any():
            raise InputError(
                f"options['reset_mask'] is {rows.dtype} of shape {tuple(rows.shape)} with {np.count_nonzero(host)} "
                f"True, expected bool of shape ({self.num_envs},) with at least one True"
            )
        if not self.dreams.begun and not host.all():
            raise NotResetError("reset with a reset_mask came first: reset all envs once before")
        return Rows(rows.to(self.world.device, copy=True), host)

    def _seed(self, rows: Rows, seed: int | Sequence[int | None] | None) -> None:
        """Seeds the rows: see `reset`."""
        if seed is None:
            seeds: list[int | None] = [None] * self.num_envs
        elif isinstance(seed, Sequence) or np.ndim(seed):
            seeds = [None if one is None else checked_seed(one, f"seeds[{i}]") for i, one in enumerate(seed)]  # type: ignore[arg-type]
        else:
            first = checked_seed(seed)
            super().reset(seed=first)
            seeds = [first + i for i in range(self.num_envs)]
        if len(seeds) != self.num_envs:
            raise InputError(f"{len(seeds)} seeds for {self.num_envs} envs, expected one number or one for each")
        if not self.dreams.begun:
            seeds = [int(self.np_random.integers(2**31)) if one is None else one for one in seeds]
        pairs = [(i, wrapped(one)) for i, one in enumerate(seeds) if rows.host[i] and one is not None]
        if pairs:
            self.dreams.random.seed(*torch.tensor(pairs, device=self.world.device).T)


def _mode(mode: str | AutoresetMode) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        known = ", ".join(repr(known.value) for known in AutoresetMode)
        raise InputError(f"autoreset_mode is {mode!r}, expected one of {known}") from error
