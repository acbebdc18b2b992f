"""Batches of native actions, as Gymnasium hands them to a vector environment, to flat ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from gymnasium.vector.utils import iterate
from numpy.typing import NDArray
from torch import Tensor

from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace, Leaf


def flat_actions(
    space: ActionSpace, batched: Space, actions: Any, count: int, wanted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Flat actions (b, a) of a batch of native ones.

    Args:
        space: of one action.
        batched: Gymnasium's space of the batch.
        actions: an array or a tensor (b, ...), or a nest of them.
        count: b.
        wanted: (b,) bool; other rows may hold anything and give a valid action.

    Raises:
        InputError: too many or too few actions, another structure or type, or an action that is not in the space:
            names the env, the value and the space.
    """
    rows = _rows(space, batched, in_numpy(actions), count)
    flat = np.empty((count, space.size))
    flat[:] = _any_valid(space)
    for index in np.flatnonzero(wanted):
        try:
            flat[index] = space.flatten(rows[index])
        except InputError as error:
            raise InputError(f"env {index}: action {rows[index]!r:.100} is not in {space}: {error}") from error
    return flat


def fast_flat_actions(
    space: ActionSpace, batched: Space, actions: Any, count: int, wanted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """As `flat_actions`; the usual case, one good array of one plain space, without looking at each row by itself."""
    array = in_numpy(actions)
    leaf = space.tree
    if isinstance(leaf, Leaf) and isinstance(array, np.ndarray) and array.shape == (count, *leaf.shape):
        kinds = "iub" if leaf.categorical else "fiub"
        if array.dtype.kind in kinds and wanted.all():
            flat = array.reshape(count, -1).astype(np.float64)
            if space.holds(flat):
                return flat
    return flat_actions(space, batched, array, count, wanted)


def in_numpy(actions: Any) -> Any:
    """The same nest of actions with arrays in place of tensors, on whatever device they are."""
    if isinstance(actions, Tensor):
        values = actions.detach().cpu()
        # In double precision, which holds them all: numpy has no bfloat16.
        return (values.double() if values.is_floating_point() else values).numpy()
    if isinstance(actions, Mapping):
        return {name: in_numpy(part) for name, part in actions.items()}
    if isinstance(actions, tuple):
        return tuple(map(in_numpy, actions))
    return [in_numpy(part) for part in actions] if isinstance(actions, list) else actions


def _rows(space: ActionSpace, batched: Space, actions: Any, count: int) -> list[Any]:
    try:
        sizes = set(_sizes(batched, actions))
        rows = list(iterate(batched, actions)) if sizes == {count} else []
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"actions {actions!r:.100} are no batch of {count} of {space}: {error}") from error
    if sizes != {count}:
        found = " and ".join(map(str, sorted(sizes)))
        raise InputError(f"{found} actions for {count} envs, expected one of {space} for each")
    return rows


def _sizes(batched: Space, actions: Any) -> Iterator[int]:
    """How many actions there are in each leaf of a batch. ValueError if the nest is another one."""
    if isinstance(batched, spaces.Dict):
        if not isinstance(actions, Mapping) or actions.keys() != batched.keys():
            raise ValueError(f"expected a dict with keys {list(batched)}")
        for name, child in batched.items():
            yield from _sizes(child, actions[name])
    elif isinstance(batched, spaces.Tuple):
        if not isinstance(actions, tuple | list) or len(actions) != len(batched):
            raise ValueError(f"expected a tuple of {len(batched)}")
        for child, part in zip(batched, actions, strict=True):
            yield from _sizes(child, part)
    else:
        yield len(actions)


def _any_valid(space: ActionSpace) -> NDArray[np.float64]:
    low, high = (np.array([getattr(column, end) for column in space.columns]) for end in ("low", "high"))
    return np.clip(np.zeros(space.size), low, high)
