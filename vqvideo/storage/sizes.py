"""How large a saved model may be: no larger than its tensors, whatever its configuration asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vqvideo.errors import InputError
from vqvideo.storage.checkpoint import CONFIG, WEIGHTS
from vqvideo.storage.formats import SavedModel

_SMALL, _MOST_CODES = 2048, 2**18
_WIDTHS = {"dim", "widths", "code_dim", "heads"}
_COUNTS = {"layers", "encoder_blocks", "decoder_blocks", "blocks"}
_NO_SIZES = {"seed"}


def check_sizes(saved: SavedModel, folder: Path) -> None:
    """Refuses a configuration that asks for larger tensors, or for more layers, than its file holds: before anything is
    made as large as it says.

    Raises:
        InputError: names config.json, the setting and its value.
    """
    largest = max((max(value.shape, default=1) for value in saved.tensors.values()), default=1)
    limits = dict.fromkeys(_COUNTS, len(saved.tensors)) | dict.fromkeys(_WIDTHS, largest)
    limits["codebook_size"] = max(_MOST_CODES, largest)
    for name, value in _whole_numbers(saved.config, ""):
        key = name.rpartition(".")[2]
        # The codes of a lookup-free quantizer stand in no table; layers are never more than there are tensors.
        most = limits.get(key, max(_SMALL, largest))
        if value > most and key not in _NO_SIZES:
            raise InputError(
                f"{folder / CONFIG}: {name} is {value}, expected at most {most} for the tensors in {WEIGHTS}: the file "
                "is not ours"
            )


def _without_bounds(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Bounds of actions are no sizes, but how many choices lie between those of a discrete space is one."""
    low, high = value.get("low"), value.get("high")
    if not isinstance(low, list) or not isinstance(high, list) or len(low) != len(high):
        return value
    own = {key: item for key, item in value.items() if key not in ("low", "high")}
    if value.get("kind") == "box":
        return own
    pairs = [pair for pair in zip(low, high, strict=True) if all(isinstance(bound, int) for bound in pair)]
    return own | {"choices": [most - least + 1 for least, most in pairs]}


def _whole_numbers(value: Any, name: str) -> Iterator[tuple[str, int]]:
    if isinstance(value, Mapping):
        for key, item in _without_bounds(value).items():
            yield from _whole_numbers(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _whole_numbers(item, name)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield name, value
