"""The features of a LeRobot dataset of ours: their types in Arrow, in `info.json`, and for Hugging Face's datasets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from vqvideo.data.exporting import column_names
from vqvideo.data.exporting.films import Encoding
from vqvideo.data.index import StoreMeta

if TYPE_CHECKING:
    import pyarrow

FRAMES = "observation.image"
LAST = "is_last"
"""The feature that marks the row of the last frame, from which no action leads on."""


class Feature(NamedTuple):
    """A column of numbers."""

    dtype: str
    """NumPy's name."""
    names: list[str] | None = None
    """Of its elements; None for a single number."""

    @property
    def length(self) -> int:
        """Elements in a row."""
        return len(self.names or "1")


INDEX = {
    "timestamp": Feature("float32"),
    "frame_index": Feature("int64"),
    "episode_index": Feature("int64"),
    "index": Feature("int64"),
    "task_index": Feature("int64"),
}
"""What every LeRobot dataset has, at the end."""


def features(meta: StoreMeta) -> dict[str, Feature]:
    """All columns of numbers, in their order; without those that would hold what is not known."""
    own = {"action": Feature("float32", column_names(meta))} if meta.action_space.size else {}
    if "rewards" not in meta.missing:
        own["next.reward"] = Feature("float32")
    if "ends" not in meta.missing:
        own |= {"next.done": Feature("bool"), "next.truncated": Feature("bool")}
    return own | {LAST: Feature("bool")} | INDEX


def described(meta: StoreMeta, encoding: Encoding | None) -> dict[str, Any]:
    """The features as `info.json` has them.

    Args:
        meta: of the store.
        encoding: of the film; None for pictures.
    """
    h, w = meta.frame_size
    frames: dict[str, Any] = {"dtype": "image", "shape": [h, w, 3], "names": ["height", "width", "channels"]}
    if encoding:
        film: dict[str, Any] = {"height": h, "width": w, "codec": encoding.standard, "pix_fmt": encoding.pixels}
        film |= {"is_depth_map": False, "fps": rate(meta), "channels": 3}
        frames["dtype"] = "video"
        frames["info"] = {f"video.{name}": value for name, value in film.items()} | {"has_audio": False}
    numbers = {
        name: {"dtype": feature.dtype, "shape": [feature.length], "names": feature.names}
        for name, feature in features(meta).items()
    }
    return {FRAMES: frames, **numbers}


def rate(meta: StoreMeta) -> int | float:
    """Frames per second, as a whole number where it is one."""
    return int(meta.fps) if meta.fps == int(meta.fps) else meta.fps


def schema(meta: StoreMeta, pictures: bool) -> pyarrow.Schema:
    """Of the rows in `data/`, with what Hugging Face's datasets read their own types from."""
    import pyarrow

    fields: list[Any] = []
    theirs: dict[str, Any] = {}
    if pictures:
        fields.append((FRAMES, pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})))
        theirs[FRAMES] = {"_type": "Image"}
    for name, feature in features(meta).items():
        number = pyarrow.from_numpy_dtype(feature.dtype)
        theirs[name] = {"dtype": feature.dtype, "_type": "Value"}
        if feature.length > 1:
            number = pyarrow.list_(number, feature.length)
            theirs[name] = {"feature": theirs[name], "length": feature.length, "_type": "List"}
        fields.append((name, number))
    return pyarrow.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": theirs}})})
