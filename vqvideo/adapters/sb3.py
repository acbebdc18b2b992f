"""The dream as a `VecEnv` of Stable-Baselines3.

from stable_baselines3 import PPO
from vqvideo.adapters.sb3 import SB3VecEnv

envs = world.as_env(16, starts="data/car_racing", horizon=50, autoreset_mode="SameStep")
PPO("CnnPolicy", SB3VecEnv(envs)).learn(100_000)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from vqvideo.errors import InputError, MissingExtraError
from vqvideo.imagined_env import ImaginedVectorEnv

try:
    from stable_baselines3.common.vec_env import VecEnv
except ModuleNotFoundError as error:
    raise MissingExtraError(error, "agent") from error

Infos = list[dict[str, Any]]
"""One dict per env."""
_NUMBERS = ("entropy", "termination", "outcome_entropy", "cut")


class SB3VecEnv(VecEnv):
    """Imagined environments under the interface of Stable-Baselines3.

    `infos[i]` of a step holds as floats what numbers the envs tell (`entropy`, `termination`, `outcome_entropy`,
    `cut`), `frames` (s, h, w, 3) uint8 (a view, no copy) if they are observed, `TimeLimit.truncated` and, at an end,
    `terminal_observation`; everything in it is about the step that was taken.
    `reset_infos[i]` holds the `start` of the episode under way.

    The envs are one batch, not n objects: an attribute is that of the batch, and a method is called once for all.

    Args:
        envs: with autoreset in the same step and numpy output.

    Raises:
        InputError: another kind of env, or another mode or output.
    """

    def __init__(self, envs: ImaginedVectorEnv) -> None:
        if not isinstance(envs, ImaginedVectorEnv):
            raise InputError(
                f"SB3VecEnv is for an ImaginedVectorEnv, found {type(envs).__name__}: see WorldModel.as_env"
            )
        if envs.autoreset_mode != AutoresetMode.SAME_STEP or envs.output != "numpy":
            raise InputError(
                f"the envs have autoreset_mode={envs.autoreset_mode.value!r} and output={envs.output!r}, but "
                "Stable-Baselines3 begins anew in the step that ends, in numpy: make them with "
                "autoreset_mode='SameStep', output='numpy'"
            )
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self.metadata = {**envs.metadata, **self.metadata}

    def reset(self) -> NDArray[np.uint8]:
        """Begins all episodes, with the seeds of `seed` and the options of `set_options`: they count once."""
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        observations, infos = self.envs.reset(seed=seeds, options=self._joined_options())
        self.reset_infos = [{"start": int(start)} for start in infos["start"]]
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: Any) -> None:
        """Keeps the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_], Infos]:
        """Imagines the step: observations, rewards, dones and infos."""
        observations, rewards, terminated, truncated, infos = self.envs.step(self._actions)
        dones = terminated | truncated
        own_infos = [_step_info(infos["final_info"] if dones[i] else infos, i) for i in range(self.num_envs)]
        for i, info in enumerate(own_infos):
            info["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        for i in np.flatnonzero(dones).tolist():
            own_infos[i]["terminal_observation"] = infos["final_obs"][i]
            self.reset_infos[i] = {"start": int(infos["start"][i])}
        return observations, rewards.astype(np.float32), dones, own_infos

    def close(self) -> None:
        self.envs.close()

    def get_images(self) -> list[NDArray[np.uint8] | None]:
        """The newest frame of each env; None without `render_mode="rgb_array"`."""
        return list(self.envs.render() or [None] * self.num_envs)

    # ------------------------------------------------------------ attributes

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute for each of the envs `indices`; spaces are those of a single env."""
        name = f"single_{attr_name}" if attr_name in ("observation_space", "action_space") else attr_name
        return [getattr(self.envs, name)] * len(self._rows(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Sets the attribute of the batch; InputError if `indices` are not all envs."""
        if len(set(self._rows(indices))) < self.num_envs:
            raise InputError(f"{attr_name} cannot be set for envs {indices} alone: the envs are one batch")
        setattr(self.envs, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Calls the method of the batch once, and returns what it gave to each of the envs `indices`.

        Raises:
            InputError: it gave neither None nor one result per env, as `render` does.
        """
        results = getattr(self.envs, method_name)(*method_args, **method_kwargs)
        results = [None] * self.num_envs if results is None else results
        if not isinstance(results, list | tuple | np.ndarray) or len(results) != self.num_envs:
            raise InputError(
                f"{method_name} gave {type(results).__name__}, expected one result for each of the {self.num_envs} "
                f"envs: they are one batch, call its own method, envs.{method_name}"
            )
        return [results[i] for i in self._rows(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """False for each: single envs cannot be wrapped. For statistics, wrap the batch in `VecMonitor`."""
        return [False] * len(self._rows(indices))

    def _rows(self, indices: Any) -> list[int]:
        return list(self._get_indices(indices))

    def _joined_options(self) -> dict[str, Any] | None:
        """The options of all envs as those of a batch."""
        names = {frozenset(options) for options in self._options}
        if len(names) > 1:
            raise InputError("some envs have other reset options than others: give the same ones to all")
        return {name: _stacked([options[name] for options in self._options], name) for name in names.pop()} or None


def _step_info(infos: Mapping[str, Any], i: int) -> dict[str, Any]:
    """Row `i` of the infos of a step."""
    numbers = {name: float(infos[name][i]) for name in _NUMBERS if name in infos}
    return {**numbers, **({"frames": infos["frames"][i]} if "frames" in infos else {})}


def _stacked(values: list[Any], name: str) -> NDArray[Any]:
    try:
        return np.stack([np.asarray(value) for value in values])
    except ValueError as error:
        raise InputError(f"reset option {name} differs in shape between envs: {error}") from error
