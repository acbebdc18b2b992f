"""What an exported world says of itself, and how its files are read. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqvideo.errors import InputError
from vqvideo.models.prior.config import Sampling
from vqvideo.storage.files import Manifest, read_manifest
from vqvideo.storage.records import typed

KIND = "onnx-world"
VERSION = 1
_HEAD = ("kind", "version")
START_CODES, START_ACTIONS = "starts.codes.bin", "starts.actions.bin"
"""Start clips: codes (r, 1 + c, h, w) as int32 and the flat actions (r, s c, a) between them as float32, in the order
of C, lowest byte first.
"""
GRAPHS = ("step", "decoder", "encoder")


@dataclass(frozen=True)
class StateFacts:
    """One tensor of a graph's state."""

    shape: tuple[int, ...]
    """Without the batch, which comes first."""
    dtype: str
    """As numpy calls it."""
    start: int
    """What a fresh state is filled with."""


@dataclass(frozen=True)
class GraphFacts:
    """One graph."""

    inputs: tuple[str, ...]
    """Names of all inputs, the state among them."""
    outputs: tuple[str, ...]
    """Names of all outputs; the next state is called as the state, with `next.` before it."""
    state: dict[str, StateFacts]
    """What goes from call to call."""


@dataclass(frozen=True)
class ColumnFacts:
    """One column of the flat actions."""

    leaf: str
    """Name of the part of a nested space that it belongs to."""
    categories: int | None
    """How many values it can take, from `start` on; None when it is continuous."""
    start: int
    """The smallest category."""
    low: float | None
    """Smallest value; None for no bound."""
    high: float | None
    """Largest value; None for no bound."""
    least: float
    """What is still taken for the smallest value: there is room for rounding to single precision."""
    most: float
    """What is still taken for the largest value."""
    whole: bool
    """Whether it holds whole numbers only."""


@dataclass(frozen=True)
class WorldFacts:
    """An exported world."""

    env: dict[str, Any]
    """env_id, fps, action_repeat."""
    frame_size: tuple[int, int]
    """Height and width of frames."""
    stride: int
    """s, frames per latent step."""
    grid: tuple[int, int]
    """Tokens per latent step, in height and width."""
    codebook_size: int
    """k."""
    window: int
    """Latent steps that the prior looks back over."""
    head: str
    """How the tokens of a step are drawn."""
    action_space: dict[str, Any]
    """The Gymnasium space, as `vqvideo.spaces.ActionSpace` describes it."""
    action_columns: tuple[ColumnFacts, ...]
    """The columns of flat actions."""
    can_guide: bool
    """Whether it can dream without knowing the actions, and so be guided by them."""
    knows_rewards: bool
    """Whether rewards were recorded."""
    knows_ends: bool
    """Whether it was recorded how episodes end."""
    rewarded: bool
    """Whether any recorded reward was other than 0."""
    noise: int
    """Random numbers that a step takes."""
    weights: str
    """How weights are kept: fp32, fp16 or int8."""
    sampling: Sampling
    """How codes are drawn by default."""
    fingerprint: str
    """Of the world that was exported."""
    graphs: dict[str, GraphFacts]
    """The graphs by name."""
    starts: tuple[int, int] | None = None
    """How many start clips there are, and of how many latent steps 1 + c; None if there are none."""


def read_facts(folder: Path) -> tuple[WorldFacts, Manifest]:
    """What a folder says of itself, and its manifest, by which its files are checked.

    Raises:
        InputError: no exported world, or one of another version.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Make it: python scripts/export.py --world NAME --out {folder}")
    manifest = read_manifest(folder)
    found = tuple(manifest.info.get(name) for name in _HEAD)
    if found != (KIND, VERSION):
        raise InputError(
            f"{folder} is {found[0]!r} of version {found[1]!r}, expected {KIND!r} of version {VERSION}, which "
            "scripts/export.py makes"
        )
    facts = typed(WorldFacts, {name: value for name, value in manifest.info.items() if name not in _HEAD}, str(folder))
    if missing := [name for name in GRAPHS if name not in facts.graphs or f"{name}.onnx" not in manifest.files]:
        raise InputError(f"{folder}: no {missing[0]} graph: export the world again")
    return facts, manifest
