"""A checker for vector environments: whatever a batch of envs does, the same envs one by one must do too.

It plays any `VectorEnv` beside Gymnasium's `SyncVectorEnv` over single envs of the same seeds and compares all that
comes out, in the autoreset mode that the batch says it has.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

LEVELS = 1
"""By how much uint8 may differ: batches of another size round differently."""
TOLERANCE = 1e-4
"""By how much floats may."""
_STEP = ("observations", "rewards", "terminated", "truncated", "infos")
_RESET = ("observations", "infos")


class Ends(NamedTuple):
    """How many episodes a check has seen end."""

    terminated: int
    truncated: int


def check_vector_env(
    make_vector: Callable[[], VectorEnv], make_single: Callable[[], gymnasium.Env], steps: int, seed: int
) -> Ends:
    """Checks a vector env.

    Args:
        make_vector: makes the batch.
        make_single: makes one of its envs.
        steps: how many to play after each of three resets; episodes must end within them.
        seed: of the envs and the actions.

    Raises:
        AssertionError: the first difference that is found: says where.
    """
    vector = make_vector()
    singles = _singles(make_single, vector)
    _check_spaces(vector, singles)
    given: list[tuple[Any, Any]] = []
    vector.action_space.seed(seed)
    seeds = [seed, [seed + 7 * i for i in range(vector.num_envs)], None]
    ends = np.zeros(2, int)
    for number, one in enumerate(seeds):
        found, expected = vector.reset(seed=one), singles.reset(seed=one)
        _check_results(vector, found, expected, f"reset {number}", given)
        for t in range(steps):
            ends += _play_step(vector, singles, f"reset {number}, step {t}", given)
    assert ends.any(), f"no episode ended in {steps} steps: nothing was learnt about ends"
    for kept, copied in given:
        _check_same(kept, copied, "written into after it was returned: ", exact=True)
    vector.close()
    singles.close()
    return Ends(*ends.tolist())


def _singles(make_single: Callable[[], gymnasium.Env], vector: VectorEnv) -> SyncVectorEnv:
    mode = vector.metadata.get("autoreset_mode")
    assert isinstance(mode, AutoresetMode), f"metadata['autoreset_mode'] is {mode!r}, expected an AutoresetMode"
    return SyncVectorEnv([make_single] * vector.num_envs, autoreset_mode=mode)


def _check_spaces(vector: VectorEnv, singles: SyncVectorEnv) -> None:
    for name in ("observation_space", "action_space"):
        single, batched = getattr(vector, f"single_{name}"), getattr(vector, name)
        assert single == getattr(singles, f"single_{name}"), f"single_{name} is {single}, not that of one env"
        assert batched == batch_space(single, vector.num_envs), f"{name} is {batched}, not a batch of {single}"


def _play_step(vector: VectorEnv, singles: SyncVectorEnv, where: str, given: list[tuple[Any, Any]]) -> list[int]:
    """One step, and the resets after it if autoreset is disabled; returns how many were terminated and truncated."""
    actions = vector.action_space.sample()
    untouched = deepcopy(actions)
    found, expected = vector.step(actions), singles.step(actions)
    _check_same(actions, untouched, f"{where}: actions were written into: ", exact=True)
    _check_results(vector, found, expected, where, given)
    ends = expected[2], expected[3]
    over = ends[0] | ends[1]
    if vector.metadata["autoreset_mode"] == AutoresetMode.DISABLED and over.any():
        found, expected = (envs.reset(options={"reset_mask": over.copy()}) for envs in (vector, singles))
        _check_results(vector, found, expected, f"{where}: reset of {np.flatnonzero(over)}", given)
    return [int(end.sum()) for end in ends]


def _check_results(
    vector: VectorEnv, found: tuple[Any, ...], expected: tuple[Any, ...], where: str, given: list[tuple[Any, Any]]
) -> None:
    """Compares the results of a step or a reset, and keeps them to look at them again at the end."""
    names = _RESET if len(expected) == len(_RESET) else _STEP
    assert len(found) == len(names), f"{where}: {len(found)} results, expected {', '.join(names)}"
    for name, one, two in zip(names, found, expected, strict=True):
        _check_same(one, two, f"{where}: {name}")
    assert vector.observation_space.contains(found[0]), f"{where}: observations are not in {vector.observation_space}"
    for last in found[-1].get("final_obs", ()):
        space = vector.single_observation_space
        assert last is None or space.contains(last), f"{where}: a final_obs is not in {space}"
    given.append((found, deepcopy(found)))


def _check_same(found: Any, expected: Any, where: str, *, exact: bool = False) -> None:
    """AssertionError unless two nests have the same names, types, shapes and, nearly or exactly, values."""
    assert type(found) is type(expected), f"{where} is a {type(found).__name__}, expected a {type(expected).__name__}"
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), f"{where} has {sorted(found)}, expected {sorted(expected)}"
        for name, value in expected.items():
            _check_same(found[name], value, f"{where}[{name!r}]", exact=exact)
    elif isinstance(expected, tuple | list):
        assert len(found) == len(expected), f"{where} has {len(found)} parts, expected {len(expected)}"
        for i, (one, two) in enumerate(zip(found, expected, strict=True)):
            _check_same(one, two, f"{where}[{i}]", exact=exact)
    elif isinstance(expected, np.ndarray):
        _check_same_array(found, expected, where, exact)
    else:
        assert found == expected, f"{where} is {found!r}, expected {expected!r}"


def _check_same_array(found: np.ndarray, expected: np.ndarray, where: str, exact: bool) -> None:
    kind, other = ((array.dtype, array.shape) for array in (found, expected))
    assert kind == other, f"{where} is {kind}, expected {other}"
    if expected.dtype == object:
        _check_same(list(found), list(expected), where, exact=exact)
        return
    slack = 0.0 if exact else {"u": LEVELS, "f": TOLERANCE}.get(expected.dtype.kind, 0.0)
    off = np.abs(found.astype(np.float64) - expected.astype(np.float64)) > slack
    assert not off.any(), (
        f"{where} differs at {np.argwhere(off)[0].tolist()}: {found[off][0]}, expected {expected[off][0]}"
    )
