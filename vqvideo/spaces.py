"""Action spaces on disk and in models: Gymnasium's, described in JSON, and a flat form of every action.

The flat form is one float64 vector of `size` a. The leaves of a nested space follow each other in the space's own
order; a Discrete is one column that holds its value, a MultiDiscrete, MultiBinary or Box has one column per element.
Where nothing acts, as in videos that were only filmed, a is 0.

Gymnasium is loaded when a space is first looked into, so that models and stores can be imported without it.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vqvideo.errors import InputError

if TYPE_CHECKING:
    from gymnasium import Space

_KINDS = {
    "Box": "box",
    "Discrete": "discrete",
    "MultiDiscrete": "multi_discrete",
    "MultiBinary": "multi_binary",
    "Dict": "dict",
    "Tuple": "tuple",
}
"""What descriptions call the classes of Gymnasium."""
_WIDEST_CATEGORY = 2**24
"""Clips carry actions as float32, which holds whole numbers exactly up to here."""
_WIDEST_INTEGER = 2**53
_TOLERANCE = 1e-6
"""Share of a Box's range by which float32 rounding may leave it."""


class Column(NamedTuple):
    """One column of the flat action vector."""

    leaf: str
    """Name of the leaf that it belongs to."""
    categories: int | None
    """How many values it can take, or None when it is continuous."""
    start: int
    """The smallest category; 0 when continuous."""
    low: float
    """Smallest value, perhaps -inf."""
    high: float
    """Largest value, perhaps inf."""


class Leaf(NamedTuple):
    """One space that is not a Dict or Tuple."""

    name: str
    """Path inside the nested space such as "arm/0"; "" when the space is not nested."""
    space: Any
    """Gymnasium's."""
    columns: tuple[Column, ...]
    """Its columns of the flat vector."""

    @property
    def number_kinds(self) -> str:
        """Of which of numpy's kinds its actions may be. A float is no choice: 1.9 from a network is not action 1."""
        return "fiub" if _kind(self.space) == "box" else "iub"


class Limits(NamedTuple):
    """What the columns of flat actions may hold, (a,) each: arrays, or tensors on some device."""

    low: Any
    high: Any
    """Finite, so that infinity is outside; so is NaN, which compares to nothing."""
    whole: Any
    """bool: only whole numbers."""

    def hold(self, flat: Any) -> Any:
        """Which numbers of flat actions (..., a) are valid; float64, arrays or tensors as the limits are."""
        return (flat >= self.low) & (flat <= self.high) & (~self.whole | (flat == flat.round()))


@dataclass(frozen=True)
class ActionSpace:
    """What actions an environment takes; made by `from_gymnasium` or `from_json`.

    Example:
        >>> space = ActionSpace.from_gymnasium(env.action_space)
        >>> vector = space.flatten(env.action_space.sample())  # (a,) float64
        >>> env.step(space.unflatten(vector))
    """

    description: str
    """`to_json` as text: spaces are equal if their descriptions are."""

    @classmethod
    def none(cls) -> ActionSpace:
        """The space of what has no actions, such as videos: a Box of no elements, whose flat actions are (0,).

        A Box and no empty Dict or Tuple, which hold nothing either: its batches (n, 0) still know how many they are,
        and Gymnasium's flattening and iterating work on it.
        """
        from gymnasium import spaces

        return cls.from_gymnasium(spaces.Box(0, 1, (0,)))

    @classmethod
    def from_gymnasium(cls, space: Any) -> ActionSpace:
        """The record of a Gymnasium space: Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple; empty ones too.

        Raises:
            InputError: another kind of space, or one whose bounds cannot be represented.
        """
        return cls(json.dumps(_describe(space)))

    @classmethod
    def from_json(cls, value: Any) -> ActionSpace:
        """The space that `to_json` described; a malformed description is an InputError."""
        try:
            return cls.from_gymnasium(_native(value))
        except (KeyError, TypeError, ValueError, AssertionError, ArithmeticError) as error:
            raise InputError(f"action space: malformed description ({error!r:.200})") from error

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON values from which `from_json` makes an equal space."""
        return json.loads(self.description)

    def native(self) -> Space[Any]:
        """A new Gymnasium space, of which `from_gymnasium` makes an equal record."""
        return _native(self.to_json())

    @cached_property
    def _space(self) -> Space[Any]:
        return self.native()

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        """The spaces that are not containers, in the order of the flat vector."""
        return tuple(_leaves(self._space, ""))

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the flat vector."""
        return tuple(column for leaf in self.leaves for column in leaf.columns)

    @property
    def size(self) -> int:
        """a, the length of the flat vector; 0 where nothing acts."""
        return len(self.columns)

    @cached_property
    def limits(self) -> Limits:
        """What the columns may hold, in float64, with room for the rounding of float32."""
        low, high = (np.array([getattr(column, end) for column in self.columns], float) for end in ("low", "high"))
        whole = np.array([leaf.space.dtype.kind in "iu" for leaf in self.leaves for _ in leaf.columns], bool)
        # Without a finite range the bound itself is the yardstick of rounding.
        bound = np.maximum(*(np.where(np.isfinite(end), np.abs(end), 0.0) for end in (low, high)))
        largest = np.finfo(np.float64).max
        with np.errstate(over="ignore"):
            span = np.where(np.isfinite(high - low), high - low, np.maximum(1.0, bound))
            slack = np.where(whole, 0.0, _TOLERANCE * span)
            return Limits((low - slack).clip(-largest, largest), (high + slack).clip(-largest, largest), whole)

    def __str__(self) -> str:
        return " ".join(repr(self._space).split()) if self.size else "an empty space (no actions)"

    def parts(self, action: Any) -> list[Any]:
        """The parts of a native action, or of a batch of them, that belong to each of `leaves`.

        Raises:
            InputError: the action is nested in another way than the space.
        """
        return list(_parts(self._space, action, ""))

    def flatten(self, action: Any) -> NDArray[np.float64]:
        """A native action as its flat vector (a,) float64.

        Raises:
            InputError: wrong structure, shape or number type, NaN, or outside the space.
        """
        parts = [_values(*pair) for pair in zip(self.leaves, self.parts(action), strict=True)]
        vector = np.concatenate([np.zeros(0), *parts])
        self.validate(vector)
        return vector

    def unflatten(self, vector: ArrayLike) -> Any:
        """The native action of a flat vector (a,): int, array, dict or tuple, as `env.step` takes it.

        Raises:
            InputError: as `validate` does.
        """
        flat = np.asarray(vector, dtype=np.float64)
        if flat.shape != (self.size,):
            raise InputError(f"action: shape {flat.shape}, expected ({self.size},) for {self}")
        self.validate(flat)
        # The tolerance of `validate` must not reach an environment that checks its bounds exactly.
        low, high = ([getattr(column, end) for column in self.columns] for end in ("low", "high"))
        return _joined(self._space, iter(flat.clip(low, high).tolist()))

    def validate(self, vectors: ArrayLike, where: str = "action") -> None:
        """Checks flat actions (..., a), in any number type.

        Raises:
            InputError: a wrong last dimension, NaN, infinity, a value outside its bounds, or a fraction
                where a whole number belongs; names `where`, the column, the value and its bounds.
        """
        flat = np.asarray(vectors)
        if flat.dtype.kind not in "fiub" or flat.ndim == 0 or flat.shape[-1] != self.size:
            raise InputError(
                f"{where}: {flat.dtype} of shape {flat.shape}, expected numbers (..., {self.size}) for {self}"
            )
        flat = flat.astype(np.float64, copy=False)
        good = self.limits.hold(flat)
        if good.all():
            return
        *row, column = (int(i) for i in np.argwhere(~good)[0])
        spec = self.columns[column]
        at = f"[{', '.join(map(str, row))}]" if row else ""
        leaf = f" (leaf {spec.leaf!r})" if spec.leaf else ""
        kind = "a whole number" if self.limits.whole[column] else "a number"
        raise InputError(
            f"{where}{at}: column {column}{leaf} is {float(flat[(*row, column)])}, expected {kind} "
            f"from {spec.low} to {spec.high} ({self})"
        )


def as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Numbers in the type in which models take them; those that are too large for it are its largest."""
    largest = np.finfo(np.float32).max
    return values.clip(-largest, largest).astype(np.float32)


# ---------------------------------------------------------------- spaces


def _kind(space: Any) -> str:
    """What descriptions call the space. By class name along the bases: a subclass of Box is a Box."""
    for base in type(space).__mro__:
        if base.__name__ in _KINDS:
            return _KINDS[base.__name__]
    raise InputError(f"action space {space!r:.200} is not supported; known: {', '.join(_KINDS)}")


def _children(space: Any) -> list[tuple[Any, Any]] | None:
    """Keys and spaces inside a Dict or Tuple; None for a leaf."""
    kind = _kind(space)
    if kind == "dict":
        return list(space.spaces.items())
    return list(enumerate(space.spaces)) if kind == "tuple" else None


def _leaves(space: Any, name: str) -> Iterator[Leaf]:
    children = _children(space)
    if children is None:
        yield Leaf(name, space, tuple(_columns(space, name)))
    for key, child in children or ():
        yield from _leaves(child, f"{name}/{key}" if name else str(key))


def _columns(space: Any, name: str) -> Iterator[Column]:
    kind, whole = _kind(space), np.dtype(space.dtype).kind in "iu"
    if np.dtype(space.dtype).kind not in ("iuf" if kind == "box" else "iu") or space.dtype.itemsize > 8:
        raise InputError(f"action space: a {kind} of type {space.dtype} is not supported")
    widest = _WIDEST_INTEGER if kind == "box" else _WIDEST_CATEGORY
    for low, high in zip(*_bounds(space, kind), strict=True):
        if not low <= high or (whole and not -widest <= low <= high <= widest):
            limit = f", and whole numbers up to {widest}, which are kept exactly" if whole else ""
            raise InputError(f"action space: {space!r:.200} holds values from {low} to {high}, expected some{limit}")
        yield Column(name, None, 0, low, high) if kind == "box" else Column(name, high - low + 1, low, low, high)


def _bounds(space: Any, kind: str) -> tuple[list[Any], list[Any]]:
    """Smallest and largest value of each element, included."""
    if kind == "box":
        # 0 is added because -0.0 is another text than 0.0.
        return (space.low.ravel() + 0).tolist(), (space.high.ravel() + 0).tolist()
    if kind == "multi_binary":
        start, sizes = np.zeros(space.shape), np.full(space.shape, 2)
    else:
        start, sizes = space.start, space.n if kind == "discrete" else space.nvec
    low, size = (np.ravel(values).astype(np.int64) for values in (start, sizes))
    return low.tolist(), (low + size - 1).tolist()


# ---------------------------------------------------------------- actions


def _parts(space: Any, action: Any, where: str) -> Iterator[Any]:
    """Each leaf's part of a native action, in column order."""
    children = _children(space)
    if children is None:
        yield action
        return
    keys, at = [key for key, _ in children], f" at {where!r}" if where else ""
    if _kind(space) == "dict":
        if not isinstance(action, Mapping) or set(action) != set(keys):
            found = sorted(map(str, action)) if isinstance(action, Mapping) else type(action).__name__
            raise InputError(f"action{at}: found {found}, expected a dict with keys {keys}")
    elif not isinstance(action, tuple | list) or len(action) != len(keys):
        raise InputError(f"action{at}: found {reprlib.repr(action)}, expected a tuple of {len(keys)}: {space}")
    for key, child in children:
        yield from _parts(child, action[key], f"{where}/{key}" if where else str(key))


def _values(leaf: Leaf, part: Any) -> NDArray[np.float64]:
    """A leaf's part of a native action as its columns."""
    at = f" (leaf {leaf.name!r})" if leaf.name else ""
    try:
        array = np.asarray(part)
    except ValueError as error:
        raise InputError(f"action{at}: {error}; expected {leaf.space}") from error
    if array.dtype.kind not in leaf.number_kinds:
        raise InputError(f"action{at}: found {reprlib.repr(part)} of type {array.dtype}, expected {leaf.space}")
    if array.shape != leaf.space.shape:
        raise InputError(f"action{at}: shape {array.shape}, expected {leaf.space.shape} for {leaf.space}")
    return array.astype(np.float64).ravel()


def _joined(space: Any, values: Iterator[float]) -> Any:
    """The native action whose elements are the next values."""
    children = _children(space)
    if children is not None:
        parts = {key: _joined(child, values) for key, child in children}
        return parts if _kind(space) == "dict" else tuple(parts.values())
    if _kind(space) == "discrete":
        return int(next(values))
    count = math.prod(space.shape)
    return np.fromiter(values, float, count).astype(space.dtype).reshape(space.shape)


# ---------------------------------------------------------------- JSON


def _describe(space: Any) -> dict[str, Any]:
    children, kind = _children(space), _kind(space)
    if children is None:
        columns = list(_columns(space, ""))
        found = {"low": [column.low for column in columns], "high": [column.high for column in columns]}
        bounds = {end: [bound if math.isfinite(bound) else str(bound) for bound in ends] for end, ends in found.items()}
        return {"kind": kind, "shape": [*map(int, space.shape)], "dtype": np.dtype(space.dtype).name, **bounds}
    record = {"kind": kind, "spaces": [_describe(child) for _, child in children]}
    # Keys in a list: a JSON object would lose the order of columns to a writer that sorts keys.
    return record | ({"keys": [key for key, _ in children]} if kind == "dict" else {})


def _native(value: Any) -> Space[Any]:
    """The Gymnasium space of a description, whatever Gymnasium says if there is none."""
    from gymnasium import spaces

    kind = value["kind"]
    if kind in ("dict", "tuple"):
        children = [_native(child) for child in value["spaces"]]
        # Pairs in a row: Gymnasium sorts the keys of a plain dict, and columns follow the recorded order.
        return (
            spaces.Tuple(children) if kind == "tuple" else spaces.Dict(list(zip(value["keys"], children, strict=True)))
        )
    dtype = np.dtype(value["dtype"]).type
    infinite = {"inf": np.inf, "-inf": -np.inf}
    low, high = (
        np.array([infinite.get(bound, bound) for bound in value[end]]).reshape(value["shape"])
        for end in ("low", "high")
    )
    if kind == "box":
        return spaces.Box(low.astype(dtype), high.astype(dtype), dtype=dtype)
    if kind == "discrete":
        return spaces.Discrete(high.item() - low.item() + 1, start=low.item(), dtype=dtype)
    if kind == "multi_discrete":
        return spaces.MultiDiscrete((high - low + 1).astype(dtype), dtype=dtype, start=low.astype(dtype))
    if kind == "multi_binary":
        return spaces.MultiBinary(len(low) if low.ndim == 1 else low.shape)
    raise InputError(f"action space: unknown kind {reprlib.repr(kind)}")
