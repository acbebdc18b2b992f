"""How anything reaches the disk: complete and checkable, or not at all.

One commit protocol for checkpoints, models, episodes and caches: write under a temporary name beside the place, fsync,
rename, fsync the parent. Folders carry a `manifest.json` with the size and SHA-256 of every file, written last.

Whenever a process is killed or the power fails, this holds afterwards:

- A file of `write_file` has its old content or the new one.
- A folder of `commit_folder` is there with all its files, or not at all.
- A folder that was to replace another is the old one or the new one. Two renames exchange them, and between these the
  old one waits beside its place under a name that says so. `standing` finds it there, and the next writer
  (`commit_folder`, `clean_temporaries`) moves it back: nothing is lost.
- What an interrupted writer leaves has a temporary name, and `clean_temporaries` removes it.

All that write raise DiskError, with the free bytes, when the disk is full, read-only or gone. All that read raise
InputError, with the file, when it is missing, damaged, or no regular file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqvideo.errors import InputError
from vqvideo.storage.records import typed

MANIFEST = "manifest.json"
FOLDER_FORMAT = 1
"""Version of the manifest of a folder."""
MAX_JSON_BYTES = 4 * 2**20
"""No JSON file that vqvideo writes comes near this; a larger one is refused before it is read."""

AnyPath = str | os.PathLike[str]
Content = bytes | Callable[[], bytes]

logger = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")
_TEMPORARY = re.compile(r"\.tmp-(old-)?[0-9a-f]+-(.+)", re.DOTALL)


class DiskError(InputError):
    """The disk is full, read-only or gone: what was to be written, and how much room there is."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns every OSError inside into a DiskError about `path`."""
    try:
        yield
    except OSError as error:
        there = next(place for place in path.absolute().parents if place.is_dir())
        raise DiskError(
            f"{path}: cannot be written ({error.strerror or error}); {shutil.disk_usage(there).free} bytes are free in "
            f"{there}. What was there before is untouched"
        ) from error


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value that digests are taken over (sorted keys, no spaces, no NaN)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """`record` with a `digest` field: the SHA-256 of everything else in it."""
    plain = json.loads(json.dumps(dict(record), allow_nan=False))
    return plain | {"digest": hashlib.sha256(canonical_json(plain)).hexdigest()}


def unseal(text: bytes, where: str) -> dict[str, Any]:
    """The record that `seal` made, with its digest; InputError, which names `where`, if that does not fit."""
    record = parse_json(text, where)
    if not isinstance(record, dict) or "digest" not in record:
        raise InputError(f"{where}: expected a JSON object with a digest; the file is damaged")
    actual = seal({key: value for key, value in record.items() if key != "digest"})["digest"]
    if record["digest"] != actual:
        raise InputError(
            f"{where}: digest mismatch (recorded {record['digest']!r:.80}, content gives {actual}): damaged"
        )
    return record


def parse_json(text: bytes, where: str) -> Any:
    """The value of a JSON text; every way in which it can be broken is an InputError naming `where`."""
    try:
        value = json.loads(text)
        # Python reads NaN, Infinity and 1e999, none of which is JSON, but refuses to write them.
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON ({error}); the file is damaged") from error
    return value


# ---------------------------------------------------------------- files


def check_regular(path: AnyPath) -> os.stat_result:
    """The stat of a regular file, without opening it: a link, a pipe or a device is an InputError."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no such file, or it cannot be read ({error})") from error
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: expected a regular file, found a link, a folder or a device")
    return found


def read_small(path: AnyPath, most: int = MAX_JSON_BYTES) -> bytes:
    """All bytes of a regular file of at most `most`."""
    size = check_regular(path).st_size
    if size > most:
        raise InputError(f"{path}: {size} bytes, expected at most {most}: vqvideo did not write this file")
    return Path(path).read_bytes()


def sha256_file(path: AnyPath) -> str:
    """SHA-256 of a regular file's content as 64 hexadecimal digits."""
    check_regular(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_file(path: AnyPath, data: bytes) -> None:
    """Puts `data` at `path` so that a crash leaves the old content or the new one, never a mixture."""
    with replacing(Path(path)) as temporary:
        write_new(temporary, data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, whose file takes its place when all went well."""
    temporary = aside(path)
    with disk_errors(path):
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_new(path: Path, data: bytes) -> None:
    """A new file, durable when this returns. FileExistsError if there is one."""
    # 0o666 and not tempfile's 0600: the umask decides who may read what a run wrote.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def make_folder(path: AnyPath) -> None:
    """A folder and those above it, all durable when this returns; one that is there already stays."""
    path = Path(path).absolute()
    missing = [place for place in (path, *path.parents) if not place.exists()]
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        for made in reversed(missing):
            sync_folder(made.parent)


def check_writable(path: AnyPath) -> None:
    """Raises DiskError unless files can be made in a folder; where there is none yet, in the nearest one above it."""
    path = Path(path).absolute()
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    with disk_errors(path):
        # Tried, and not asked: permissions tell nothing of a disk that is mounted read-only.
        probe = aside(there / "probe")
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        probe.unlink(missing_ok=True)


def sync_folder(path: AnyPath) -> None:
    """Makes the names in a folder durable: a rename is only safe after this."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_durable(folder: AnyPath) -> None:
    """Waits until all that is in a folder is on the disk, whoever has written it."""
    for place, _, names in os.walk(folder):
        for name in names:
            with open(Path(place) / name, "rb") as file:
                os.fsync(file.fileno())
        sync_folder(place)


# ---------------------------------------------------------------- temporary names


def aside(path: Path, label: str = "") -> Path:
    """A temporary name beside `path`, on the same filesystem, which `clean_temporaries` knows."""
    return path.with_name(f".tmp-{label}{secrets.token_hex(4)}-{path.name}")


def standing(path: AnyPath) -> Path:
    """Where a folder is now: at `path`, or beside it if its replacement was interrupted between the two renames.

    Whoever reads moves nothing: the next writer puts the folder back.
    """
    path = Path(path)
    found = [] if os.path.lexists(path) else _leftovers(path.parent)
    return next((left for left, place, stood in found if stood and place == path), path)


def clean_temporaries(parent: AnyPath, *, of: str | None = None) -> None:
    """Removes what interrupted writers left in `parent`, or only what was on its way to the name `of`; call it while
    nobody else writes there. A folder that was moved aside, and whose replacement never arrived, is moved back.
    """
    for left, place, stood in _leftovers(Path(parent)):
        if of not in (None, place.name) or (stood and _put_back(place)):
            continue
        logger.warning("removing %s: an interrupted writer left it", left)
        if left.is_dir() and not left.is_symlink():
            remove_folder(left, place)
        else:
            left.unlink()


def _leftovers(parent: Path) -> list[tuple[Path, Path, bool]]:
    """All temporary names: each with the place that it is for, and whether it stood there before, complete."""
    found = [(left, _TEMPORARY.fullmatch(left.name)) for left in sorted(parent.glob(".tmp-*"))]
    return [(left, left.with_name(match[2]), bool(match[1])) for left, match in found if match]


def _put_back(path: Path) -> bool:
    """Undoes the first rename of a replacement that was interrupted before the second one. Whether there was one."""
    old = standing(path)
    if old != path:
        logger.warning("restoring %s: its replacement was interrupted", path)
        os.rename(old, path)
    return old != path


def remove_folder(path: AnyPath, place: Path | None = None) -> None:
    """Removes a folder so that a crash never leaves half of it under its own name, but under one for `place`."""
    gone = aside(place or Path(path))
    with disk_errors(Path(path)):
        os.rename(path, gone)
    shutil.rmtree(gone, ignore_errors=True)


# ---------------------------------------------------------------- folders are written


@dataclass(frozen=True)
class FileRecord:
    """What a manifest says about one file."""

    size: int
    """Bytes."""
    sha256: str
    """64 hexadecimal digits."""


@dataclass(frozen=True)
class Manifest:
    """The content of a folder's `manifest.json`."""

    info: dict[str, Any]
    """What the writer of the folder recorded about it."""
    files: dict[str, FileRecord]
    """Every file of the folder by name, the manifest itself excepted."""
    digest: str
    """SHA-256 over all of the above: it identifies the folder's content."""


def commit_folder(
    path: AnyPath, contents: Mapping[str, Content], info: Mapping[str, Any], *, replace: bool = False
) -> Manifest:
    """Puts a folder of files at `path`, complete with its manifest, or leaves what was there.

    Args:
        path: where the folder will be; its parent must exist.
        contents: per file name its bytes, or a function that makes them when it is their turn: large files are then
            in memory one at a time.
        info: JSON values kept in the manifest.
        replace: whether a folder that is already there gives way.

    Raises:
        InputError: `path` exists and `replace` is False.
    """
    path = Path(path)
    with disk_errors(path):
        if standing(path).exists() and not replace:
            raise InputError(f"{path} exists already: choose another name or remove it")
        temporary = aside(path)
        try:
            os.mkdir(temporary)
            files = {name: _write_member(temporary / name, content) for name, content in contents.items()}
            manifest = _write_manifest(temporary, files, info)
            sync_folder(temporary)
            swap_in(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return manifest


def _write_member(path: Path, content: Content) -> FileRecord:
    data = content if isinstance(content, bytes) else content()
    write_new(path, data)
    return FileRecord(len(data), hashlib.sha256(data).hexdigest())


def _write_manifest(folder: Path, files: dict[str, FileRecord], info: Mapping[str, Any]) -> Manifest:
    header = {"format": "vqvideo-folder", "format_version": FOLDER_FORMAT}
    record = seal(header | {"info": dict(info), "files": {name: vars(found) for name, found in files.items()}})
    write_new(folder / MANIFEST, (json.dumps(record, indent=2) + "\n").encode())
    return Manifest(record["info"], files, record["digest"])


def swap_in(temporary: Path, path: Path) -> None:
    """Moves a finished folder to its place beside it; what was there is removed afterwards."""
    _put_back(path)
    old = None
    if path.exists():
        old = aside(path, "old-")
        os.rename(path, old)
    try:
        os.rename(temporary, path)
    except OSError:
        _put_back(path)
        raise
    sync_folder(path.parent)
    if old is not None:
        remove_folder(old, path)


# ---------------------------------------------------------------- folders are read


def read_manifest(path: AnyPath) -> Manifest:
    """The manifest of a committed folder, checked against its own digest but not against the files."""
    file = Path(path) / MANIFEST
    if not file.exists():
        raise InputError(f"{path}: no {MANIFEST}: the folder is incomplete, or vqvideo did not write it")
    record = unseal(read_small(file), str(file))
    version = record.get("format_version")
    if record.get("format") != "vqvideo-folder" or version != FOLDER_FORMAT:
        raise InputError(f"{file}: format version {version!r}, this version reads {FOLDER_FORMAT}")
    manifest = typed(Manifest, {key: record[key] for key in ("info", "files", "digest") if key in record}, str(file))
    for name in manifest.files:
        if not _NAME.fullmatch(name):
            raise InputError(f"{file}: {name[:80]!r} is not a plain file name (letters, digits, _ . -)")
    return manifest


def read_members(path: AnyPath, manifest: Manifest, *names: str) -> list[bytes]:
    """The bytes of some files of a committed folder, each exactly as it was recorded."""
    for name in names:
        if name not in manifest.files:
            raise InputError(f"{Path(path) / MANIFEST}: lists no {name}; the folder is not what it should be")
    return [read_verified(Path(path) / name, manifest.files[name]) for name in names]


def read_verified(path: AnyPath, expected: FileRecord) -> bytes:
    """All bytes of a file, which are exactly those that were recorded: what is used is what was checked."""
    _check_size(path, expected)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    _check_digest(path, hashlib.sha256(data).hexdigest(), expected)
    return data


def verify_file(path: AnyPath, expected: FileRecord) -> None:
    """As `read_verified`, but a file of any size is never in memory as a whole."""
    _check_size(path, expected)
    _check_digest(path, sha256_file(path), expected)


def _check_size(path: AnyPath, expected: FileRecord) -> None:
    size = check_regular(path).st_size
    if size != expected.size:
        raise InputError(f"{path}: {size} bytes, but {expected.size} were written: the file is damaged")


def _check_digest(path: AnyPath, actual: str, expected: FileRecord) -> None:
    if actual != expected.sha256:
        raise InputError(f"{path}: sha256 is {actual}, but {expected.sha256} was written: damaged")
