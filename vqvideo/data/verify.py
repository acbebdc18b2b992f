"""Checks all that vqvideo has written under some folders: calls the loaders and gathers what they complain of.

    from vqvideo.data.verify import verify

    damaged = [found for found in verify([Path("data/car_racing"), Path("runs/car_racing")]) if found.damage]

Loaders compare what they read with the digests that were written beside it: of episodes, models, checkpoints and caches
of codes. Settings and metrics have no digest: the settings must be those that the checkpoints were trained with, and
every line of the metrics must be a record. Pictures, videos and figures are not checked. Nothing is written, no link is
followed, and nothing but regular files is opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from vqvideo.data.episode import CHUNK
from vqvideo.data.index import (
    EPISODES,
    MANIFEST,
    META,
    EpisodeEntry,
    read_manifest,
    read_meta,
    recorded_files,
    refuse_lost_lines,
)
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.storage import files
from vqvideo.storage.checkpoint import CONFIG, WEIGHTS, load_model, load_training, newest_progress, read_tensors
from vqvideo.storage.records import read_yaml

MAX_DEPTH = 64
"""Folders inside each other: nothing of ours is nested so deeply."""
CODES, SETTINGS, METRICS, ROUNDS = "codes.safetensors", "config.yaml", "metrics.jsonl", "rounds.json"
CARD = "README.md"
"""Of a model; people edit it."""
_EXPECTED = (
    f"expected a store ({META}, {MANIFEST}, {EPISODES}/), a model ({CONFIG}, {WEIGHTS}, {files.MANIFEST}), "
    "a run such as runs/NAME, or a folder that holds some of these"
)
_HEAD = 2**16
"""Bytes that are looked at to recognise a file."""
_LONGEST_LINE = 2**20
"""Bytes: no line of figures comes near this."""


class Finding(NamedTuple):
    """Something that vqvideo wrote as a whole."""

    kind: str
    """store, checkpoint, codes, model, run; or folder for one that cannot be listed."""
    path: Path
    """Its folder."""
    damage: tuple[str, ...]
    """Why it must not be used as it is, with the file: none if it is intact."""


def verify(folders: Sequence[Path], *, deep: bool = False) -> list[Finding]:
    """Checks everything under some folders.

    Args:
        folders: where to look; everything nested is found.
        deep: also decode every frame of every episode.

    Raises:
        InputError: no such folder, or nothing of vqvideo's in it.
    """
    if not folders:
        raise InputError(f"no folder to check: {_EXPECTED}")
    unreadable: list[OSError] = []
    places = dict.fromkeys(place for folder in folders for place in _places(folder, unreadable.append))
    findings = []
    for kind, path in tqdm(places, desc="verifying", unit="folder", leave=False, disable=None):
        check = partial(_CHECKS[kind], path, deep)
        # A second look: another process may have replaced or removed it during the first one.
        damage = _complaints(path, check) and _complaints(path, check)
        if not damage or path.exists():
            findings.append(Finding(kind, path, tuple(damage)))
    return findings + [Finding("folder", Path(error.filename), (str(error),)) for error in unreadable]


def _complaints(path: Path, check: Callable[[], Iterator[str] | object]) -> list[str]:
    """What a check yields, and the error that ends it."""
    found: list[str] = []
    try:
        result = check()
        # One by one: what was found before an error counts too.
        for complaint in result if isinstance(result, Iterator) else ():
            found.append(complaint)
    except InputError as error:
        found.append(str(error))
    except Exception as error:  # a stranger's values may lead a loader anywhere, and are at fault then
        found.append(f"{path}: cannot be read ({type(error).__name__}: {error})")
    return found


# ---------------------------------------------------------------- what there is


def _places(root: Path, unreadable: Callable[[OSError], object]) -> list[tuple[str, Path]]:
    """Kinds and folders of all that is under `root`, itself included."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; {_EXPECTED}")
    found = []
    for folder, folders, names in os.walk(root, onerror=unreadable):
        path = Path(folder)
        if kind := _kind(path, {*folders, *names}):
            found.append((kind, path))
        # What an interrupted writer left, and checkpoints that a resumed run has set aside already.
        deeper = len(path.relative_to(root).parts) < MAX_DEPTH
        folders[:] = [name for name in sorted(folders) if deeper and not name.startswith((".tmp-", "damaged-step-"))]
    if not found:
        raise InputError(f"{root}: nothing of vqvideo's is in it; {_EXPECTED}")
    return found


def _kind(path: Path, names: set[str]) -> str:
    """What a folder is, by more than one of its files, so that it is recognised without one of them; "" if it is not
    one of ours.
    """
    if len(names & {META, MANIFEST, EPISODES}) >= 2:
        return "store"
    in_checkpoints = path.name.startswith("step-") and path.parent.name == "checkpoints"
    if in_checkpoints or names >= {files.MANIFEST, "optimizer.safetensors"}:
        return "checkpoint"
    if CODES in names or (path.parent.name == "codes" and files.MANIFEST in names):
        return "codes"
    ours = b'"vqvideo-' in _head(path / CONFIG) + _head(path / files.MANIFEST)
    if ours or names >= {files.MANIFEST, WEIGHTS}:
        return "model"
    return "run" if ROUNDS in names or len(names & {SETTINGS, METRICS, "checkpoints", "media"}) >= 2 else ""


def _head(path: Path) -> bytes:
    """The beginning of a regular file; nothing of anything else."""
    try:
        files.check_regular(path)
        with open(path, "rb") as file:
            return file.read(_HEAD)
    except (InputError, OSError):
        return b""


# ---------------------------------------------------------------- stores


def _check_store(path: Path, deep: bool) -> Iterator[str]:
    recorded = recorded_files(path)
    if not recorded and not read_manifest(path / MANIFEST)[0]:
        read_meta(path)  # a recording in its first episode
        return
    store = Store.open(path)
    refuse_lost_lines(path, recorded - {entry.index for entry in store.entries})
    for entry in store.entries:
        yield from _complaints(path / entry.file, partial(_read_episode, store, entry, deep))


def _read_episode(store: Store, entry: EpisodeEntry, deep: bool) -> None:
    reader = store.reader(entry)
    frames = reader.shape[0] if deep else 0
    # Chunk after chunk: a few bytes can declare more frames than the memory holds.
    for first in range(0, frames, CHUNK):
        reader.frames(first, min(first + CHUNK, frames))


# ---------------------------------------------------------------- folders with a manifest


def _check_folder(load: Callable[[Path, files.Manifest], object], path: Path, deep: bool) -> Iterator[str]:
    """Compares each file with its digest and, if all fit, calls the loader."""
    manifest = files.read_manifest(path)
    damaged = False
    for name, expected in manifest.files.items():
        if name != CARD:
            complaints = _complaints(path / name, partial(files.verify_file, path / name, expected))
            damaged |= bool(complaints)
            yield from complaints
    if not damaged:
        load(path, manifest)


def _load_checkpoint(path: Path, manifest: files.Manifest) -> None:
    if path.name.startswith("step-") and path.name != f"step-{manifest.info.get('step'):08d}":
        raise InputError(f"{path / files.MANIFEST}: is of step {manifest.info.get('step')}: the folder was renamed")
    load_training(path)


# ---------------------------------------------------------------- runs


def _check_run(path: Path, deep: bool) -> Iterator[str]:
    """Settings, metrics, and the log of an improvement run; checkpoints and models are places of their own."""
    checkpoints = path / "checkpoints"
    trained = newest_progress(checkpoints).get("settings", {}) if checkpoints.is_dir() else {}
    if trained or os.path.lexists(path / SETTINGS):
        yield from _complaints(path / SETTINGS, partial(_check_settings, path / SETTINGS, trained))
    if os.path.lexists(path / METRICS):
        yield from _complaints(path / METRICS, partial(_check_metrics, path / METRICS))
    if os.path.lexists(path / ROUNDS):
        files.parse_json(files.read_small(path / ROUNDS), str(path / ROUNDS))


def _check_settings(file: Path, trained: dict[str, Any]) -> None:
    """InputError if a setting is missing, or is not what the checkpoints of the stage were trained with."""
    files.check_regular(file)
    stage = read_yaml(file).get(file.parent.name)
    for name, value in trained.items():
        if not name.startswith(("model.", "train.")):
            continue  # digests of other things, and parts that may be absent
        found: Any = stage
        for key in name.split("."):
            if not isinstance(found, dict) or key not in found:
                raise InputError(f"{file}: {name} is missing, trained with {value!r}: the file is damaged")
            found = found[key]
        # Lists are not compared: a few aliases in YAML stand for billions of values.
        if isinstance(found, str | int | float | bool) and found != value:
            raise InputError(f"{file}: {name} is {found!r}, trained with {value!r}: the file was edited or is damaged")


def _check_metrics(file: Path) -> None:
    """InputError for the first damaged line. The last one may be torn: `--resume` removes it."""
    files.check_regular(file)
    with open(file, "rb") as lines:
        for number, line in enumerate(iter(partial(lines.readline, _LONGEST_LINE), b""), 1):
            if not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
                return
            record = files.parse_json(line, f"{file} line {number}")
            if not isinstance(record, dict) or type(record.get("step")) is not int or "split" not in record:
                raise InputError(f"{file} line {number}: expected a record with a step and a split: damaged")


_CHECKS: dict[str, Callable[[Path, bool], Iterator[str]]] = {
    "store": _check_store,
    "checkpoint": partial(_check_folder, _load_checkpoint),
    "codes": partial(_check_folder, lambda path, manifest: read_tensors(path / CODES)),
    "model": partial(_check_folder, lambda path, manifest: load_model(path, str(manifest.info.get("kind")))),
    "run": _check_run,
}
