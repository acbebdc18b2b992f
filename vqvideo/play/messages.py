"""What page and server say to each other, over one websocket.

The page sends JSON text: a `Start`, then one `Step` after the other, each after the answer to the one before, with
their "type" beside their fields. The server sends {"type": "ready"} once; {"type": "error", "message", "fatal"} for
what it cannot do; and bytes, see `packed`, for a dream that has "started" and for each "step" of it: frames, and the
"reward", "termination" and "entropy" of the step. With a real game beside the dream come its frames too,
"real_reward", "real_ended", how it ended ("real_end"), or why it broke down ("real_error").
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.errors import InputError, suggest
from vqvideo.models.prior.config import Sampling
from vqvideo.storage.records import from_plain

MOST_BYTES = 4096
"""Of a message of the page, beside its actions."""
BYTES_OF_NUMBER = 32
"""Of a number of an action as text, and more."""


class MalformedError(ValueError):
    """What no page sends."""


@dataclass(frozen=True)
class Start:
    """Begin a dream."""

    dream: int
    """Its number, which comes back with all that belongs to it."""
    start: int
    """Number of the start in `site.json`."""
    seed: int
    """Equal seeds dream equal dreams."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32 or not 0 <= self.dream < 2**53:
            raise InputError(f"seed {self.seed} or dream {self.dream}, expected 0 to 2^32 - 1 and 0 to 2^53 - 1")


@dataclass(frozen=True)
class Step:
    """Go on by one latent step."""

    dream: int
    """Which one."""
    step: int
    """1, 2, ...: the how manieth step of the dream."""
    actions: tuple[tuple[float, ...], ...]
    """(s, a) flat ones."""
    sampling: Sampling
    """How codes are drawn."""


_TYPES: dict[str, type[Start] | type[Step]] = {"start": Start, "step": Step}


def parsed(text: str) -> Start | Step:
    """A message of the page.

    Raises:
        MalformedError: what no page sends: no JSON object.
        InputError: an unknown type, or fields that are missing, unknown or of another kind.
    """
    try:
        record = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise MalformedError("not valid JSON") from error
    if not isinstance(record, dict):
        raise MalformedError(f"expected a JSON object, found {type(record).__name__}")
    kind = record.pop("type", None)
    if not isinstance(kind, str) or kind not in _TYPES:
        raise InputError(f"message type {kind!r:.40}: {suggest(str(kind)[:40], _TYPES)}")
    return from_plain(_TYPES[kind], record, kind)


def _refused(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def packed(fields: dict[str, Any], frames: NDArray[np.uint8], real: NDArray[np.uint8] | None) -> bytes:
    """An answer with frames (n, h, w, 3): the length of the fields (uint32, little-endian), the fields as JSON, the
    frames of the dream, those of the real environment.
    """
    sizes = {"frames_bytes": frames.nbytes} | ({} if real is None else {"real_bytes": real.nbytes})
    head = json.dumps(fields | sizes, allow_nan=False).encode()
    parts = [struct.pack("<I", len(head)), head, frames.tobytes()]
    return b"".join(parts if real is None else [*parts, real.tobytes()])
