"""Action spaces as Gymnasium has them, made from the records of a store or a prior: no environment is needed."""

from __future__ import annotations

import numpy as np
from gymnasium import Space, spaces

from vqvideo.spaces import ActionSpace, Group, Leaf


def to_gymnasium(space: ActionSpace) -> Space:
    """The Gymnasium space of which `ActionSpace.from_gymnasium` makes an equal record."""
    return _native(space.tree)


def _native(node: Leaf | Group) -> Space:
    if isinstance(node, Leaf):
        return _native_leaf(node)
    children = [_native(child) for child in node.children]
    if node.kind == "tuple":
        return spaces.Tuple(children)
    # Pairs in a row: Gymnasium sorts the keys of a plain dict, and columns follow the recorded order.
    return spaces.Dict(list(zip(node.keys, children, strict=True)))


def _native_leaf(leaf: Leaf) -> Space:
    dtype = np.dtype(leaf.dtype).type
    if leaf.kind == "discrete":
        return spaces.Discrete(leaf.categories[0], start=int(leaf.low[0]), dtype=dtype)
    if leaf.kind == "multi_binary":
        return spaces.MultiBinary(leaf.shape)
    low, high = (np.array(bound).reshape(leaf.shape) for bound in (leaf.low, leaf.high))
    if leaf.kind == "multi_discrete":
        return spaces.MultiDiscrete((high - low + 1).astype(dtype), dtype=dtype, start=low.astype(dtype))
    return spaces.Box(low.astype(dtype), high.astype(dtype), dtype=dtype)
