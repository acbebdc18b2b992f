"""What features.json says of a dataset of TFDS: of each array of a step its shape, its type, its bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf, prod
from pathlib import Path
from typing import Any

from vqvideo.errors import InputError
from vqvideo.storage.files import parse_json, read_small

FILE = "features.json"
_STEPS = "steps"


@dataclass(frozen=True)
class Declared:
    """What is said of one array."""

    shape: tuple[int, ...] | None = None
    """Of one step; -1 for what differs from step to step. None: nothing is said."""
    dtype: str = ""
    image: bool = False
    """Whether it is an image, to be encoded."""
    bounds: tuple[float, float] | None = None
    """Between which all its values are; only of a shape that is the same in every step."""
    choices: int | None = None
    """Of a label: how many there are."""

    @property
    def size(self) -> int:
        """How many values a step has, of a shape that is the same in every step."""
        return prod(self.shape or ())

    @property
    def colour(self) -> bool:
        """Whether it is an image with three channels of 8 bits."""
        return self.image and self.dtype in ("uint8", "") and (not self.shape or self.shape[-1] == 3)


def declared(folder: Path) -> dict[str, Declared]:
    """What is said of the arrays of a step, by their paths in it; nothing where there is no such file.

    Raises:
        InputError: the file does not say what it should.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    # A cache of downloads holds links to what it has.
    content = parse_json(read_small(path.resolve()), str(path))
    try:
        steps = dict(_children(content))[_STEPS]
        return dict(_arrays(steps))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{path}: it does not say of what {_STEPS} are made ({error!r:.200}), expected what TFDS writes"
        ) from error


def _arrays(root: Any) -> Iterator[tuple[str, Declared]]:
    waiting = [("", root)]
    while waiting:
        name, node = waiting.pop()
        inside = [(f"{name}/{key}" if name else key, child) for key, child in _children(node)]
        waiting += inside
        if not inside and name:
            yield name, _declared(node)


def _children(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The features inside of one, in what TFDS writes, and in what it wrote before version 4.5."""
    if "sequence" in node:
        yield from _children(node["sequence"]["feature"])
    elif "featuresDict" in node:
        yield from node["featuresDict"]["features"].items()
    elif "content" in node and node["type"].endswith(("FeaturesDict", "Dataset", "Sequence")):
        content = node["content"]
        yield from _children(content["feature"]) if "feature" in content else content.items()


def _declared(node: Mapping[str, Any]) -> Declared:
    if "sequence" in node:
        # A list per step, of any length.
        return Declared((-1,))
    kinds = ("image", "tensor", "classLabel", "content")
    kind = next((kind for kind in kinds if isinstance(node.get(kind), Mapping)), None)
    if kind is None:
        return Declared()
    said = node[kind]
    image = kind == "image" or str(node.get("type", "")).endswith(".Image")
    shape = _shape(said["shape"]) if "shape" in said else () if kind == "classLabel" else None
    choices = int(said["numClasses"]) if "numClasses" in said else None
    bounds = _bounds(said) if shape is not None and min(shape, default=0) >= 0 else None
    return Declared(shape, str(said.get("dtype", "")), image, bounds, choices)


def _shape(said: Any) -> tuple[int, ...]:
    sides = said.get("dimensions", []) if isinstance(said, Mapping) else said
    return tuple(-1 if side is None else int(side) for side in sides)


def _bounds(said: Mapping[str, Any]) -> tuple[float, float] | None:
    if "minimum" not in said or "maximum" not in said:
        return None
    low, high = float(said["minimum"]), float(said["maximum"])
    return (low, high) if -inf < low < high < inf else None
