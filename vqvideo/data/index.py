"""What stands in a store beside its episodes: what all have in common (`meta.json`), and a line for each
(`manifest.jsonl`).

Every line has a digest of its own, names the digest of its episode's file and that of the meta. So a damaged or
exchanged file is noticed. Lines that are lost as a whole leave files that no line names, which is at least a warning.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import logging
import math
import os
import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from vqvideo.data.episode import MAX_STEPS, check_frame_size
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace
from vqvideo.storage.files import canonical_json, check_regular, seal, unseal

FORMAT_VERSION = 1
SPLITS = ("train", "held_out")

logger = logging.getLogger(__name__)
META, MANIFEST, EPISODES = "meta.json", "manifest.jsonl", "episodes"
_EPISODE_NAME = re.compile(r"\d{6,9}\.safetensors")
_LINE_DIGITS = 16
MAX_INDEX = 10**9 - 1
_MAX_META_BYTES = 2**20
_MAX_MANIFEST_BYTES = 2**26
"""A hundred thousand lines and more."""
_MAX_LINE_BYTES = 2**12
"""No line of ours comes near this: what is longer is not parsed."""
_FLAT_BYTES = 6
"""Of a step in its file, beside the action: a float32 reward and two flags, none of them compressed."""
Record = TypeVar("Record", "StoreMeta", "EpisodeEntry")


@dataclass(frozen=True)
class StoreMeta:
    """What all episodes of a store have in common."""

    env_id: str
    """The Gymnasium id or preset that was recorded."""
    env_spec: str | None
    """The environment's spec as JSON text, when it has one."""
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
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        check_frame_size(self.frame_size, "frame_size")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"fps: {self.fps}, expected a positive number")
        for name, least in (("action_repeat", 1), ("skip_first", 0), ("held_out_every", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: {getattr(self, name)}, expected at least {least}")

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON values from which `from_json` makes an equal meta."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["action_space"] = self.action_space.to_json()
        values["frame_size"] = list(self.frame_size)
        return values

    @classmethod
    def from_json(cls, record: dict[str, Any], where: str = META) -> StoreMeta:
        """The meta that `to_json` described.

        Raises:
            InputError: missing or unknown keys, values of the wrong type, or another format version.
        """
        version = record.get("format_version")
        if version != FORMAT_VERSION:
            raise InputError(f"{where}: format version {version!r}, this version reads {FORMAT_VERSION}")
        values = dict(record)
        if "action_space" in record:
            values["action_space"] = ActionSpace.from_json(record["action_space"])
        if isinstance(record.get("frame_size"), list):
            values["frame_size"] = tuple(record["frame_size"])
        return _from_record(cls, values, where)


@dataclass(frozen=True)
class EpisodeEntry:
    """One line of the manifest."""

    index: int
    """Number of the episode; its seed follows from it."""
    file: str
    """Path inside the store."""
    length: int
    """T, the number of actions."""
    split: str
    """"train" or "held_out"."""
    seed: int
    """What the environment was reset with."""
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


_TYPES: dict[str, Any] = {
    "int": int,
    "float": (int, float),
    "str": str,
    "bool": bool,
    "str | None": (str, type(None)),
    "tuple[int, int]": tuple,
    "dict[str, str]": dict,
    "ActionSpace": ActionSpace,
}


def _from_record(kind: type[Record], values: dict[str, Any], where: str) -> Record:
    """A dataclass from its own keys, each of the declared type; only those with a default may be missing."""
    fields, needed = _fields(kind)  # type: ignore[arg-type]
    unknown, missing = sorted(set(values) - set(fields)), sorted(needed - set(values))
    if unknown or missing:
        raise InputError(f"{where}: unknown keys {unknown!s:.300}, missing keys {missing}")
    for name, value in values.items():
        annotation = fields[name]
        wrong_bool = isinstance(value, bool) and annotation != "bool"
        if (
            wrong_bool
            or not isinstance(value, _TYPES[annotation])
            or (annotation == "float" and not _fits_float(value))
        ):
            raise InputError(f"{where}: {name} is {reprlib.repr(value)}, expected {annotation}")
    return kind(**values)


@cache
def _fields(kind: type) -> tuple[dict[str, str], frozenset[str]]:
    """Types by name, and the names without a default. Kept: a store has a line for each of its episodes."""
    fields = dataclasses.fields(kind)
    needed = frozenset(field.name for field in fields if field.default is dataclasses.MISSING)
    return {field.name: str(field.type) for field in fields}, needed


def _fits_float(value: float) -> bool:
    """JSON knows whole numbers of any length."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def episode_file(index: int) -> str:
    """Path of an episode inside its store."""
    return f"{EPISODES}/{index:06d}.safetensors"


# ---------------------------------------------------------------- manifest


def to_line(entry: EpisodeEntry) -> bytes:
    """The line of an episode, with its digest and a newline."""
    return json.dumps(seal(vars(entry), _LINE_DIGITS)).encode() + b"\n"


def from_line(line: bytes, where: str) -> EpisodeEntry:
    """The episode of a line. InputError, which names `where`, if the line is damaged or could not be ours."""
    if len(line) > _MAX_LINE_BYTES:
        raise InputError(f"{where}: {len(line)} bytes, expected at most {_MAX_LINE_BYTES}; the file is damaged")
    entry = _from_record(EpisodeEntry, unseal(line, where), where)
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
    text = _read(path, _MAX_MANIFEST_BYTES) if path.exists() or path.is_symlink() else b""
    size = text.rfind(b"\n") + 1
    if size < len(text):
        _refuse_damaged_end(text[size:], path)
        logger.warning("%s: the last line is torn; its episode does not count", path)
    # Line by line: of a large file that is not ours, the first line is all that is parsed.
    lines = itertools.takewhile(lambda line: line.endswith(b"\n"), io.BytesIO(text))
    entries = [from_line(line, f"{path} line {number}") for number, line in enumerate(lines, 1)]
    entries.sort(key=lambda entry: entry.index)
    for one, two in itertools.pairwise(entries):
        if one.index == two.index:
            raise InputError(f"{path}: episode {one.index} is recorded twice; remove one of the lines")
    return entries, size


def _refuse_damaged_end(torn: bytes, path: Path) -> None:
    """A torn line is the beginning of one; a complete one with something else for a newline is damage."""
    if len(torn) > _MAX_LINE_BYTES:
        raise InputError(f"{path}: ends with {len(torn)} bytes without a newline: the file is damaged")
    try:
        from_line(torn[:-1], "")
    except InputError:
        return
    raise InputError(f"{path}: the last byte is not a newline: the file is damaged")


def read_meta(path: Path) -> tuple[StoreMeta, str]:
    """The meta of a store and the digest that the lines of its manifest name. InputError if it is damaged."""
    file = path / META
    record = unseal(_read(file, _MAX_META_BYTES), str(file))
    return StoreMeta.from_json(record, str(file)), _meta_digest(record)


def _read(file: Path, most: int) -> bytes:
    size = check_regular(file).st_size
    if size > most:
        raise InputError(f"{file}: {size} bytes, expected at most {most}; the file is not ours")
    return file.read_bytes()


def _meta_digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(record)).hexdigest()[:_LINE_DIGITS]


# ---------------------------------------------------------------- do meta, manifest and files agree?


def check_entries(path: Path, entries: Iterable[EpisodeEntry], meta: StoreMeta, digest: str) -> None:
    """Refuses lines of another store, and lines that promise more steps than their files can hold: before anything is
    made as large as they say.

    Args:
        path: of the store.
        entries: the lines.
        meta: of the store.
        digest: of that meta.

    Raises:
        InputError: names the file and the episode.
    """
    step = 8 * meta.action_space.size + _FLAT_BYTES
    for entry in entries:
        if entry.meta not in ("", digest):
            raise InputError(
                f"{path / META}: not the one that {path / MANIFEST} was written beside (digest {digest}, but episode"
                f" {entry.index} has {entry.meta!r:.80}): one of the two files is another store's; restore it"
            )
        if entry.bytes < entry.length * step:
            raise InputError(
                f"{path / MANIFEST}: {path / entry.file} has {entry.length} steps in {entry.bytes} bytes, expected"
                f" at least {entry.length * step}: line or file is not ours"
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
