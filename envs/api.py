"""Holds an environment to Gymnasium's API: what it returns otherwise is one clear error, where it would be a riddle."""

from __future__ import annotations

import contextlib
import re
from typing import Any, NoReturn

import gymnasium
import numpy as np

from vqvideo.errors import InputError

OLD_API = (
    "An environment for old gym (before 0.26) has to be changed, or recorded through Shimmy: pip install "
    "'shimmy[gym-v21]', then --env shimmy:GymV21Environment-v0 --env-kwargs env_id=OLD_ID"
)


class GymnasiumApi(gymnasium.Wrapper):
    """Checks what reset and step of an environment return.

    Rewards become floats and ends bools: arrays of one element and numpy's bools are what is meant by them.

    Raises:
        InputError: reset or step return something else than Gymnasium expects.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        for name in ("action_space", "observation_space"):
            space = getattr(env, name, None)
            if not isinstance(space, gymnasium.Space):
                self._refuse(f"has an {name} of {_kind(space)}", f"one of gymnasium.spaces. {OLD_API}")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        # Many environments leave the options out, and nothing here has any to give.
        given = {"seed": seed} if options is None else {"seed": seed, "options": options}
        try:
            result: Any = self.env.reset(**given)
        except TypeError as error:
            if not re.search(r"unexpected keyword argument '(seed|options)'", str(error)):
                raise
            self._refuse(f"has a reset that takes no seed: {error}", f"reset(seed=None, options=None). {OLD_API}")
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
            self._refuse(f"returned {_kind(result)} from reset", f"(observation, info). {OLD_API}")
        return result

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        result: Any = self.env.step(action)
        if not (isinstance(result, tuple) and len(result) == 5):
            self._refuse(
                f"returned {_kind(result)} from step", f"(observation, reward, terminated, truncated, info). {OLD_API}"
            )
        observation, reward, terminated, truncated, info = result
        return (
            observation,
            self._reward(reward),
            self._flag("terminated", terminated),
            self._flag("truncated", truncated),
            info,
        )

    def _reward(self, reward: Any) -> float:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return float(np.asarray(reward).item())
        self._refuse(f"gave the reward {reward!r:.80}", "a number")

    def _flag(self, name: str, value: Any) -> bool:
        with contextlib.suppress(TypeError, ValueError):
            item = np.asarray(value).item()
            if item in (0, 1):
                return bool(item)
        self._refuse(f"gave {name} as {value!r:.80}", "True or False")

    def _refuse(self, found: str, expected: str) -> NoReturn:
        raise InputError(f"{name_of_env(self.env)} {found}; Gymnasium expects {expected}")


def hold_to_api(env: gymnasium.Env) -> gymnasium.Env:
    """`env` with the checks below all of Gymnasium's own wrappers, which would stumble over what is wrong."""
    inner, outer = env, None
    while isinstance(inner, gymnasium.Wrapper) and type(inner).__module__.startswith("gymnasium.wrappers"):
        outer, inner = inner, inner.env
    checked = GymnasiumApi(inner)
    if outer is None:
        return checked
    outer.env = checked
    return env


def name_of_env(env: gymnasium.Env) -> str:
    """The id of an environment, for messages."""
    spec = getattr(env.unwrapped, "spec", None)
    return spec.id if spec is not None else type(env.unwrapped).__name__


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return "None" if value is None else f"{type(value).__module__}.{type(value).__name__}"
