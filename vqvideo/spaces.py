"""Action spaces as plain records: what a store and a prior know about actions without gymnasium.

Every action also has a flat form, one float64 vector of `size` a. The leaves of a nested space follow
each other in the space's own order; a Discrete is one column that holds its value, a MultiDiscrete,
MultiBinary or Box has one column per element.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vqvideo.errors import InputError

CATEGORICAL = ("discrete", "multi_discrete", "multi_binary")
_DTYPES = ("float16", "float32", "float64", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)))
_WIDEST_CATEGORY = 2**24
"""Clips carry actions as float32, which holds whole numbers exactly up to here."""
_WIDEST_INTEGER = 2**53
_DEEPEST = 32
"""Spaces inside spaces; the names of leaves grow with every level."""
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


@dataclass(frozen=True)
class Leaf:
    """One space that is not a container."""

    name: str
    """Path inside the nested space such as "arm/0"; "" when the space is not nested."""
    kind: str
    """"box", "discrete", "multi_discrete" or "multi_binary"."""
    shape: tuple[int, ...]
    """Shape of the native action; () for a Discrete."""
    dtype: str
    """Number type of the native action, for example "float32"."""
    low: tuple[float, ...]
    """Smallest value per element; the `start` of a discrete one."""
    high: tuple[float, ...]
    """Largest value per element, included; `start + n - 1` of a discrete one."""
    start_column: int
    """Where it begins in the flat vector."""

    @property
    def stop_column(self) -> int:
        """One past its last column in the flat vector."""
        return self.start_column + len(self.low)

    @property
    def categorical(self) -> bool:
        """Whether its columns hold categories; a Box of whole numbers is not categorical."""
        return self.kind in CATEGORICAL

    @property
    def categories(self) -> tuple[int, ...]:
        """How many values each column can take; () for a Box."""
        if not self.categorical:
            return ()
        return tuple(int(high - low) + 1 for low, high in zip(self.low, self.high, strict=True))

    @property
    def columns(self) -> tuple[Column, ...]:
        """Its columns of the flat vector."""
        categories = self.categories or (None,) * len(self.low)
        starts = [int(low) if self.categorical else 0 for low in self.low]
        rows = zip(categories, starts, self.low, self.high, strict=True)
        return tuple(Column(self.name, *row) for row in rows)

    def __str__(self) -> str:
        if self.kind == "discrete":
            start = f", start={self.low[0]}" if self.low[0] else ""
            return f"Discrete({self.categories[0]}{start})"
        if self.kind == "multi_binary":
            return f"MultiBinary({_shape_text(self.shape)})"
        if self.kind == "multi_discrete":
            start = f", start={[*map(int, self.low)]}" if any(self.low) else ""
            return f"MultiDiscrete({list(self.categories)}{start})"
        return f"Box({_shape_text(self.shape)}) [{_bounds_text(self.low, self.high)}]"


@dataclass(frozen=True)
class Group:
    """A Dict or Tuple of spaces."""

    kind: str
    """"dict" or "tuple"."""
    keys: tuple[str, ...]
    """Names of the children; "0", "1", ... in a tuple."""
    children: tuple[Leaf | Group, ...]

    def __str__(self) -> str:
        if self.kind == "tuple":
            return f"Tuple({', '.join(map(str, self.children))})"
        pairs = zip(self.keys, self.children, strict=True)
        return f"Dict({', '.join(f'{key}: {child}' for key, child in pairs)})"


@dataclass(frozen=True)
class ActionSpace:
    """What actions an environment takes; made by `from_gymnasium` or `from_json`.

    Example:
        >>> space = ActionSpace.from_gymnasium(env.action_space)
        >>> vector = space.flatten(env.action_space.sample())  # (a,) float64
        >>> env.step(space.unflatten(vector))
    """

    tree: Leaf | Group

    @classmethod
    def from_gymnasium(cls, space: Any) -> ActionSpace:
        """The record of a Gymnasium space: Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple.

        Raises:
            InputError: another kind of space, or one whose bounds cannot be represented.
        """
        return cls.from_json(_describe(space))

    @classmethod
    def from_json(cls, value: Any) -> ActionSpace:
        """The space that `to_json` described; a malformed description is an InputError."""
        try:
            tree, size = _build(value, "", 0, _DEEPEST)
        except (KeyError, TypeError, OverflowError) as error:
            raise InputError(f"action space: malformed description ({error!r:.200})") from error
        if size == 0:
            raise InputError(f"action space {tree} has no columns: an action needs at least one number")
        return cls(tree)

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON values from which `from_json` makes an equal space."""
        return _to_json(self.tree)

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        """The spaces that are not containers, in the order of the flat vector."""
        return tuple(_leaves(self.tree))

    @property
    def size(self) -> int:
        """a, the length of the flat vector."""
        return self.leaves[-1].stop_column

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the flat vector."""
        return tuple(column for leaf in self.leaves for column in leaf.columns)

    def __str__(self) -> str:
        return str(self.tree)

    def flatten(self, action: Any) -> NDArray[np.float64]:
        """A native action as its flat vector (a,) float64.

        Raises:
            InputError: wrong structure, shape or number type, NaN, or outside the space.
        """
        vector = np.concatenate([_leaf_vector(leaf, part) for leaf, part in _pairs(self.tree, action, "")])
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
        return _native(self.tree, flat)

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
        good = self._good(flat)
        if not good.all():
            self._complain(flat, good, where)

    def holds(self, vectors: NDArray[np.float64]) -> bool:
        """Whether all flat actions (..., a) are in the space."""
        return bool(self._good(vectors).all())

    def _good(self, flat: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which numbers of (..., a) are valid."""
        low, high, whole = self._limits
        good = np.isfinite(flat) & (flat >= low) & (flat <= high)
        return good & (~whole | (flat == np.floor(flat)))

    @cached_property
    def _limits(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        whole = np.concatenate([np.full(len(leaf.low), _is_whole(leaf)) for leaf in self.leaves])
        low = np.array([column.low for column in self.columns], dtype=np.float64)
        high = np.array([column.high for column in self.columns], dtype=np.float64)
        # Without a finite range the bound itself is the yardstick of rounding.
        bound = np.maximum(_finite_size(low), _finite_size(high))
        span = np.where(np.isfinite(high - low), high - low, np.maximum(1.0, bound))
        slack = np.where(whole, 0.0, _TOLERANCE * span)
        return low - slack, high + slack, whole

    def _complain(self, flat: NDArray[np.float64], good: NDArray[np.bool_], where: str) -> None:
        *row, column = (int(i) for i in np.argwhere(~good)[0])
        found = flat[(*row, column)]
        spec = self.columns[column]
        leaf = f" (leaf {spec.leaf!r})" if spec.leaf else ""
        at = f"[{', '.join(map(str, row))}]" if row else ""
        kind = "a whole number" if self._limits[2][column] else "a number"
        raise InputError(
            f"{where}{at}: column {column}{leaf} is {float(found)}, expected {kind} "
            f"from {spec.low} to {spec.high} ({self})"
        )


# ---------------------------------------------------------------- walking the tree


def _leaves(node: Leaf | Group) -> Iterator[Leaf]:
    if isinstance(node, Leaf):
        yield node
    else:
        for child in node.children:
            yield from _leaves(child)


def _pairs(node: Leaf | Group, action: Any, where: str) -> Iterator[tuple[Leaf, Any]]:
    """Each leaf with its part of a native action, in column order."""
    if isinstance(node, Leaf):
        yield node, action
        return
    for key, child, part in zip(node.keys, node.children, _parts(node, action, where), strict=True):
        yield from _pairs(child, part, f"{where}/{key}" if where else key)


def _parts(group: Group, action: Any, where: str) -> list[Any]:
    at = f" at {where!r}" if where else ""
    if group.kind == "dict":
        if not isinstance(action, Mapping) or set(action) != set(group.keys):
            found = sorted(map(str, action)) if isinstance(action, Mapping) else type(action).__name__
            raise InputError(f"action{at}: found {found}, expected a dict with keys {list(group.keys)}")
        return [action[key] for key in group.keys]
    if not isinstance(action, tuple | list) or len(action) != len(group.keys):
        raise InputError(f"action{at}: found {reprlib.repr(action)}, expected a tuple of {len(group.keys)}: {group}")
    return list(action)


def _leaf_vector(leaf: Leaf, part: Any) -> NDArray[np.float64]:
    at = f" (leaf {leaf.name!r})" if leaf.name else ""
    try:
        array = np.asarray(part)
    except ValueError as error:
        raise InputError(f"action{at}: {error}; expected {leaf}") from error
    # A float is no choice: 1.9 from a network must not quietly become action 1.
    if array.dtype.kind not in ("iub" if leaf.categorical else "fiub"):
        raise InputError(f"action{at}: found {reprlib.repr(part)} of type {array.dtype}, expected {leaf}")
    if array.shape != leaf.shape:
        raise InputError(f"action{at}: shape {array.shape}, expected {leaf.shape} for {leaf}")
    return array.astype(np.float64).ravel()


def _native(node: Leaf | Group, flat: NDArray[np.float64]) -> Any:
    if isinstance(node, Group):
        parts = [_native(child, flat) for child in node.children]
        return tuple(parts) if node.kind == "tuple" else dict(zip(node.keys, parts, strict=True))
    values = flat[node.start_column : node.stop_column]
    if node.kind == "discrete":
        return int(values[0])
    # The tolerance of `validate` must not reach an environment that checks its bounds exactly.
    return np.clip(values, node.low, node.high).astype(node.dtype).reshape(node.shape)


def _is_whole(leaf: Leaf) -> bool:
    return np.dtype(leaf.dtype).kind in "iu"


def _finite_size(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), np.abs(values), 0.0)


# ---------------------------------------------------------------- gymnasium and JSON


def _describe(space: Any) -> dict[str, Any]:
    # By class name along the bases: a subclass of Box is a Box, and gymnasium is never imported.
    for base in type(space).__mro__:
        if base.__name__ in _DESCRIBERS:
            return _DESCRIBERS[base.__name__](space)
    raise InputError(f"action space {space!r:.200} is not supported; known: {', '.join(_DESCRIBERS)}")


def _describe_box(space: Any) -> dict[str, Any]:
    low, high = (np.broadcast_to(bound, space.shape) for bound in (space.low, space.high))
    return _description("box", space.shape, space.dtype, low, high)


def _describe_discrete(space: Any) -> dict[str, Any]:
    start = int(space.start)
    return _description("discrete", (), space.dtype, start, start + int(space.n) - 1)


def _describe_multi_discrete(space: Any) -> dict[str, Any]:
    start = np.broadcast_to(getattr(space, "start", 0), space.shape).astype(np.int64)
    return _description("multi_discrete", space.shape, space.dtype, start, start + space.nvec - 1)


def _describe_multi_binary(space: Any) -> dict[str, Any]:
    zeros = np.zeros(space.shape, dtype=np.int64)
    return _description("multi_binary", space.shape, space.dtype, zeros, zeros + 1)


def _describe_dict(space: Any) -> dict[str, Any]:
    children = [_describe(child) for child in space.spaces.values()]
    # Keys in a list: a JSON object would lose the order of columns to a writer that sorts keys.
    return {"kind": "dict", "keys": list(space.spaces), "spaces": children}


def _describe_tuple(space: Any) -> dict[str, Any]:
    return {"kind": "tuple", "spaces": [_describe(child) for child in space.spaces]}


_DESCRIBERS = {
    "Box": _describe_box,
    "Discrete": _describe_discrete,
    "MultiDiscrete": _describe_multi_discrete,
    "MultiBinary": _describe_multi_binary,
    "Dict": _describe_dict,
    "Tuple": _describe_tuple,
}


def _description(kind: str, shape: Any, dtype: Any, low: ArrayLike, high: ArrayLike) -> dict[str, Any]:
    return {
        "kind": kind,
        "shape": [int(n) for n in shape],
        "dtype": np.dtype(dtype).name,
        "low": [_bound_to_json(value) for value in np.asarray(low).ravel().tolist()],
        "high": [_bound_to_json(value) for value in np.asarray(high).ravel().tolist()],
    }


def _to_json(node: Leaf | Group) -> dict[str, Any]:
    if isinstance(node, Leaf):
        return _description(node.kind, node.shape, node.dtype, node.low, node.high)
    record: dict[str, Any] = {"kind": node.kind, "spaces": [_to_json(child) for child in node.children]}
    return record | ({"keys": list(node.keys)} if node.kind == "dict" else {})


def _build(value: Any, name: str, column: int, depth: int) -> tuple[Leaf | Group, int]:
    """The node that a description means, and the first column after it."""
    if not isinstance(value, Mapping):
        raise InputError(f"action space: malformed description {reprlib.repr(value)}")
    kind = value["kind"]
    if kind == "box" or kind in CATEGORICAL:
        leaf = _build_leaf(value, name, column)
        return leaf, leaf.stop_column
    if kind not in ("dict", "tuple"):
        raise InputError(f"action space: unknown kind {reprlib.repr(kind)}")
    if not depth:
        raise InputError(f"action space: more than {_DEEPEST} spaces inside each other")
    spaces = value["spaces"]
    keys = value["keys"] if kind == "dict" else [str(i) for i in range(len(spaces))]
    if len(keys) != len(spaces) or len(set(keys)) != len(keys) or not all(isinstance(k, str) for k in keys):
        raise InputError(f"action space: a {kind} needs one distinct string key per space, found {reprlib.repr(keys)}")
    children = []
    for key, child in zip(keys, spaces, strict=True):
        node, column = _build(child, f"{name}/{key}" if name else key, column, depth - 1)
        children.append(node)
    return Group(kind, tuple(keys), tuple(children)), column


def _build_leaf(value: Any, name: str, column: int) -> Leaf:
    kind, dtype = value["kind"], value["dtype"]
    shape = tuple(value["shape"])
    low = tuple(_bound_from_json(bound) for bound in value["low"])
    high = tuple(_bound_from_json(bound) for bound in value["high"])
    leaf = Leaf(name, kind, shape, dtype, low, high, column)
    if dtype not in _DTYPES or (leaf.categorical and not _is_whole(leaf)):
        raise InputError(f"action space: a {kind} of type {reprlib.repr(dtype)} is not supported")
    if not all(type(n) is int and n >= 0 for n in shape) or not len(low) == len(high) == math.prod(shape):
        raise InputError(f"action space: shape {reprlib.repr(shape)} does not fit {len(low)} and {len(high)} bounds")
    if kind == "discrete" and shape:
        raise InputError(f"action space: a discrete has shape (), found {reprlib.repr(shape)}")
    if kind == "multi_binary" and (dtype != "int8" or set(low) - {0} or set(high) - {1}):
        raise InputError(f"action space: a multi_binary of {dtype} from {reprlib.repr(low)} to {reprlib.repr(high)}")
    _check_bounds(leaf)
    return leaf


def _check_bounds(leaf: Leaf) -> None:
    widest = _WIDEST_CATEGORY if leaf.categorical else _WIDEST_INTEGER
    kept = np.iinfo(leaf.dtype) if _is_whole(leaf) else np.finfo(leaf.dtype)
    for low, high in zip(leaf.low, leaf.high, strict=True):
        if not low <= high:
            raise InputError(f"action space: a {leaf.kind} from {low} to {high} is empty")
        if _is_whole(leaf) and not (-widest <= low and high <= widest):
            raise InputError(
                f"action space: a {leaf.kind} of {leaf.dtype} from {low} to {high} is too wide;"
                f" whole numbers are kept exactly up to {widest}"
            )
        if _is_whole(leaf) and (low != int(low) or high != int(high)):
            raise InputError(f"action space: a {leaf.kind} of {leaf.dtype} has bounds {low}, {high}")
        if any(math.isfinite(bound) and not float(kept.min) <= bound <= float(kept.max) for bound in (low, high)):
            raise InputError(f"action space: a {leaf.kind} from {low} to {high} does not fit into {leaf.dtype}")


def _bound_to_json(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _bound_from_json(value: Any) -> float:
    if value in ("inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"action space: {reprlib.repr(value)} is not a bound")
    float(value)  # an OverflowError, if it has hundreds of digits
    return value


# ---------------------------------------------------------------- text


def _shape_text(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _bounds_text(low: tuple[float, ...], high: tuple[float, ...]) -> str:
    pairs = [f"{a:g}..{b:g}" for a, b in zip(low, high, strict=True)]
    if len(pairs) > 6 and len(set(pairs)) > 1:
        return f"{', '.join(pairs[:3])}, ..., {pairs[-1]}"
    return pairs[0] if len(set(pairs)) == 1 else ", ".join(pairs)
