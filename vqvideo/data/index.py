"""What stands in a store beside its episodes: what all have in common (`meta.json`), and a line for each
(`manifest.jsonl`).

The meta has a digest of its own. Every line names the digest of its episode's file and that of the meta, so a damaged
or exchanged file is noticed. Lines that are lost as a whole leave files that no line names, which is at least a
warning.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vqvideo.data.episode import MAX_STEPS, check_frame_size
from vqvideo.errors import InputError, at_least
from vqvideo.spaces import ActionSpace
from vqvideo.storage.files import parse_json, read_small, seal, unseal, write_file
from vqvideo.storage.records import to_plain, typed

STORE_FORMAT = 1
"""Version of `meta.json` and of the lines."""
SPLITS = ("train", "held_out")

logger = logging.getLogger(__name__)
META, MANIFEST, EPISODES = "meta.json", "manifest.jsonl", "episodes"
_EPISODE_NAME = re.compile(r"\d{6,9}\.safetensors")
_DIGEST_DIGITS = 16
"""Of the digest of the meta, in a line."""
MAX_INDEX = 10**9 - 1
_MAX_META_BYTES = 2**20
_MAX_MANIFEST_BYTES = 2**26
"""A hundred thousand lines and more."""


@dataclass(frozen=True)
class StoreMeta:
    """What all episodes of a store have in common."""

    env_id: str
    """The Gymnasium id or preset that was recorded; of imported episodes the name of their source."""
    env_spec: str | None
    """The environment's spec as JSON text, when it has one; of imported episodes the settings of the import."""
    action_space: ActionSpace
    """The space of the recorded actions."""
    frame_size: tuple[int, int]
    """(h, w) in pixels."""
    fps: float
    """Stored frames per second, after action repeat."""
    action_repeat: int
    """How many environment steps one stored step holds its action for."""
    skip_first: int
    """Environment steps left out after each reset."""
    policy: str
    """Name of what chose the actions."""
    seed: int
    """The run's seed, from which each episode's seed follows."""
    held_out_every: int
    """Every n-th episode is held out; 0 for none."""
    versions: dict[str, str]
    """Versions of the packages that recorded the store."""
    format_version: int = STORE_FORMAT
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the environment's constructor beside those of its preset."""
    pixels: str | None = None
    """What the frames show: "observation", one of its keys, or "render"; None: the key of the preset, an observation
    that is a picture (h, w) or (h, w, c) of bytes, or else what is rendered.
    """
    missing: tuple[str, ...] = ()
    """What is not known of any step, and stands in the episodes as zeros: "rewards", "ends"."""

    def __post_init__(self) -> None:
        check_frame_size(self.frame_size, "frame_size")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"fps: {self.fps}, expected a positive number")
        at_least(self, "", action_repeat=1, skip_first=0, held_out_every=0)

    @property
    def imported(self) -> str | None:
        """The format from which the episodes were imported, such as videos; None where an environment was recorded."""
        spec = parse_json(self.env_spec.encode(), "env_spec") if self.env_spec else None
        return spec.get("imported") if isinstance(spec, dict) else None


def lasting(meta: StoreMeta) -> dict[str, Any]:
    """What of a meta tells one store from another: all but the versions. Settings that came later do not count while
    they are at their defaults, so that older stores stay the same.
    """
    plain = to_plain(meta)
    later = ("env_kwargs", "pixels", "missing")
    return {name: value for name, value in plain.items() if name != "versions" and not (name in later and not value)}


@dataclass(frozen=True)
class EpisodeEntry:
    """One line of the manifest."""

    index: int
    """Number of the episode; its seed follows from it, but for imported ones."""
    file: str
    """Path inside the store."""
    length: int
    """T, the number of actions."""
    split: str
    """"train" or "held_out"."""
    seed: int
    """What the environment was reset with; of imported episodes the frame of the source that they begin with."""
    total_reward: float
    """Sum of the rewards."""
    terminated: bool
    """Whether the environment ended it; otherwise it was cut."""
    sha256: str
    """Digest of the file."""
    bytes: int
    """Size of the file."""
    meta: str = ""
    """Digest of the meta that it was recorded with; stores from before there was this field have none."""


def episode_file(index: int) -> str:
    """Path of an episode inside its store."""
    return f"{EPISODES}/{index:06d}.safetensors"


# ---------------------------------------------------------------- reading and writing


def to_line(entry: EpisodeEntry) -> bytes:
    """The line of an episode, with a newline."""
    return json.dumps(vars(entry)).encode() + b"\n"


def from_line(line: bytes, where: str) -> EpisodeEntry:
    """The episode of a line. InputError, which names `where`, if no recording can have written the line."""
    record = parse_json(line, where)
    if isinstance(record, dict):
        # Lines once had a digest of their own. What counts has one still: the episode's file.
        record.pop("digest", None)
    entry = typed(EpisodeEntry, record, f"{where}: episode")
    # Only this one name is ever opened, whatever else a manifest says.
    if not 0 <= entry.index <= MAX_INDEX or entry.file != episode_file(entry.index):
        raise InputError(f"{where}: file {entry.file!r:.80} is not the name of episode {entry.index}")
    if not 1 <= entry.length <= MAX_STEPS or entry.split not in SPLITS:
        raise InputError(f"{where}: length {entry.length} or split {entry.split!r:.80} is impossible")
    return entry


def read_manifest(path: Path) -> tuple[list[EpisodeEntry], int]:
    """All complete lines, sorted by index, and how many bytes they take; the rest is a torn line.

    Raises:
        InputError: a line is damaged, or two are of one episode; names the file and the line.
    """
    text = read_small(path, _MAX_MANIFEST_BYTES) if os.path.lexists(path) else b""
    size = text.rfind(b"\n") + 1
    if size < len(text):
        _refuse_damaged_end(text[size:], path)
        logger.warning("%s: the last line is torn; its episode does not count", path)
    # Line by line: of a large file that is something else, the first line is all that is parsed.
    lines = itertools.takewhile(lambda line: line.endswith(b"\n"), io.BytesIO(text))
    entries = [from_line(line, f"{path} line {number}") for number, line in enumerate(lines, 1)]
    entries.sort(key=lambda entry: entry.index)
    for one, two in itertools.pairwise(entries):
        if one.index == two.index:
            raise InputError(f"{path}: episode {one.index} is recorded twice; remove one of the lines")
    return entries, size


def _refuse_damaged_end(torn: bytes, path: Path) -> None:
    """A torn line is the beginning of one; a complete one with something else for a newline is damage."""
    try:
        from_line(torn[:-1], "")
    except InputError:
        return
    raise InputError(f"{path}: the last byte is not a newline: the file is damaged")


def write_meta(path: Path, meta: StoreMeta) -> None:
    """Puts the meta of a store into its folder, with a digest."""
    write_file(path / META, (json.dumps(seal(to_plain(meta)), indent=2) + "\n").encode())


def read_meta(path: Path) -> tuple[StoreMeta, str]:
    """The meta of a store and the digest that the lines of its manifest name. InputError if it is damaged."""
    file = path / META
    record = unseal(read_small(file, _MAX_META_BYTES), str(file))
    digest = record.pop("digest")
    if record.get("format_version") != STORE_FORMAT:
        version = record.get("format_version")
        raise InputError(f"{file}: format version {version!r}, this version reads {STORE_FORMAT}")
    return typed(StoreMeta, record, f"{file}: meta"), digest[:_DIGEST_DIGITS]


# ---------------------------------------------------------------- do meta, manifest and files agree?


def check_entries(path: Path, entries: Iterable[EpisodeEntry], digest: str) -> None:
    """Raises InputError for lines of another store: those that name another meta than the one of this `digest`."""
    for entry in entries:
        if entry.meta not in ("", digest):
            raise InputError(
                f"{path / META}: not the one that {path / MANIFEST} was written beside (digest {digest}, but episode"
                f" {entry.index} has {entry.meta!r:.80}): one of the two files is another store's; restore it"
            )


def recorded_files(path: Path) -> set[int]:
    """Numbers of the episode files that are there, whether a line names them or not. InputError for a link."""
    folder = path / EPISODES
    if folder.is_symlink():
        raise InputError(f"{folder}: expected a folder, found a link; move the episodes there")
    names = os.listdir(folder) if folder.is_dir() else []
    numbers = {name: int(Path(name).stem) for name in names if _EPISODE_NAME.fullmatch(name)}
    return {number for name, number in numbers.items() if episode_file(number) == f"{EPISODES}/{name}"}


def named(path: Path, indices: Iterable[int]) -> str:
    """Episode files by name, the first few of many."""
    names = [str(path / episode_file(index)) for index in sorted(indices)]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def refuse_lost_lines(path: Path, unlisted: set[int]) -> None:
    """Raises InputError if more files lack a line than the one that an interrupted recording leaves."""
    if len(unlisted) > 1:
        raise InputError(
            f"{path / MANIFEST} has lost lines: none names {named(path, unlisted)}. Restore it from a copy, or move"
            " these files away to do without them"
        )
