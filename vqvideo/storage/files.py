"""How anything reaches the disk: complete and checkable, or not at all.

One commit protocol for checkpoints, models, episodes and caches: write under a temporary sibling name, fsync, rename,
fsync the parent. Folders carry a `manifest.json` with the size and SHA-256 of every file, written last. Whoever reads
only ever sees the old state or the new one, and notices a changed bit.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqvideo.errors import InputError
from vqvideo.storage.disk import AnyPath, explained

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
MAX_JSON_BYTES = 4 * 2**20
"""No JSON file of ours comes near this (a store's manifest has lines); a larger one is refused before it is read."""

Writer = bytes | Callable[[Path], None]

logger = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")
_TEMPORARY = ".tmp-"
_OLD_LABEL = "old-"
_OLD = re.compile(r"\.tmp-old-[0-9a-f]+-(.+)")
_ON_ITS_WAY = r"\.tmp-(old-)?[0-9a-f]+-"


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


# ---------------------------------------------------------------- JSON with a digest


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value that digests are taken over (sorted keys, no spaces, no NaN)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def seal(record: Mapping[str, Any], digits: int = 64) -> dict[str, Any]:
    """`record` with a `digest` field over everything else in it (the first `digits` of a SHA-256)."""
    plain = json.loads(json.dumps(dict(record), allow_nan=False))
    return plain | {"digest": hashlib.sha256(canonical_json(plain)).hexdigest()[:digits]}


def unseal(text: bytes, where: str) -> dict[str, Any]:
    """The record that `seal` made, without its digest.

    Raises:
        InputError: `text` is not JSON, not an object, or does not match its digest; names `where`.
    """
    record = parse_json(text, where)
    if not isinstance(record, dict) or not isinstance(record.get("digest"), str):
        raise InputError(f"{where}: expected a JSON object with a digest; the file is damaged or not ours")
    digest = record.pop("digest")
    actual = hashlib.sha256(canonical_json(record)).hexdigest()
    if len(digest) < 16 or actual[: len(digest)] != digest:
        raise InputError(f"{where}: digest mismatch (recorded {digest}, content gives {actual}): damaged")
    return record


def parse_json(text: bytes, where: str) -> Any:
    """The value of a JSON text; every way in which it can be broken is an InputError naming `where`."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON ({error}); the file is damaged") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits:.40} is too large for a number")
    return value


# ---------------------------------------------------------------- files


def check_name(name: str, where: str) -> str:
    """`name` if it is a plain file name: letters, digits, `_ . -`, no separator, no leading dot."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"{where}: {str(name)[:80]!r} is not a plain file name (letters, digits, _ . -)")
    return name


def check_regular(path: AnyPath) -> os.stat_result:
    """The stat of a regular file, without opening it: a link, a pipe or a device is an InputError."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no such file, or it cannot be read ({error})") from error
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: expected a regular file, found a link, a folder or a device")
    return found


def read_small(path: AnyPath) -> bytes:
    """All bytes of a regular file of at most `MAX_JSON_BYTES`."""
    size = check_regular(path).st_size
    if size > MAX_JSON_BYTES:
        raise InputError(f"{path}: {size} bytes, expected at most {MAX_JSON_BYTES}; the file is not ours")
    return Path(path).read_bytes()


def sha256_file(path: AnyPath) -> str:
    """SHA-256 of a regular file's content as 64 hexadecimal digits."""
    check_regular(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_verified(path: AnyPath, expected: FileRecord) -> bytes:
    """All bytes of a file, which are exactly those that were recorded: what is used is what was checked.

    Raises:
        InputError: the file is missing, or its size or SHA-256 differs; names it.
    """
    _check_size(path, expected)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    _check_digest(path, hashlib.sha256(data).hexdigest(), expected)
    return data


def write_file(path: AnyPath, data: bytes) -> None:
    """Puts `data` at `path` so that a crash leaves the old content or the new one, never a mixture.

    Raises:
        DiskError: the disk is full or the folder cannot be written; names the path and the free bytes.
    """
    path = Path(path)
    temporary = aside(path)
    with explained(path, len(data)):
        try:
            write_new(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def make_folder(path: AnyPath) -> None:
    """A folder and those above it, all durable when this returns; one that is there already stays.

    Raises:
        DiskError: there is a file of that name, or the place cannot be written.
    """
    path = Path(path).absolute()
    missing = [place for place in (path, *path.parents) if not place.exists()]
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        for made in reversed(missing):
            sync_folder(made.parent)


def sync_folder(path: AnyPath) -> None:
    """Makes the names in a folder durable: a rename is only safe after this."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def aside(path: Path, label: str = "") -> Path:
    """A temporary name beside `path`, on the same filesystem, which `clean_temporaries` knows."""
    return path.with_name(f"{_TEMPORARY}{label}{secrets.token_hex(4)}-{path.name}")


def write_new(path: Path, data: bytes) -> None:
    """A new file, durable when this returns. FileExistsError if there is one."""
    # 0o666 and not tempfile's 0600: the umask decides who may read what a run wrote.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


# ---------------------------------------------------------------- folders


def commit_folder(
    path: AnyPath, writers: Mapping[str, Writer], info: Mapping[str, Any], *, replace: bool = False
) -> Manifest:
    """Puts a folder of files at `path`, complete with its manifest, or leaves what was there.

    Args:
        path: where the folder will be; its parent must exist.
        writers: per file name its bytes, or a function that writes the file at the path it is given.
        info: JSON values kept in the manifest.
        replace: whether a folder that is already there gives way.

    Raises:
        InputError: `path` exists and `replace` is False, or a name is not a plain file name.
        DiskError: the disk is full or the folder cannot be written; names the path and the free bytes.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise InputError(f"{path} exists already: choose another name or remove it")
    for name in writers:
        check_name(name, str(path))
    temporary = aside(path)
    with explained(path, _known_size(writers)):
        try:
            os.mkdir(temporary)
            files = {name: _write_member(temporary / name, writer) for name, writer in writers.items()}
            manifest = _write_manifest(temporary, files, info)
            sync_folder(temporary)
            swap_in(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return manifest


def _known_size(writers: Mapping[str, Writer]) -> int:
    return sum(len(writer) for writer in writers.values() if isinstance(writer, Sized))


def _write_member(path: Path, writer: Writer) -> FileRecord:
    if isinstance(writer, bytes):
        write_new(path, writer)
    else:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        mode = stat.S_IMODE(path.stat().st_mode)
        writer(path)
        # Some writers replace the file by a private (0600) one of their own.
        os.chmod(path, mode)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    return FileRecord(path.stat().st_size, sha256_file(path))


def _write_manifest(folder: Path, files: dict[str, FileRecord], info: Mapping[str, Any]) -> Manifest:
    record = seal(
        {
            "format": "vqvideo-folder",
            "format_version": FORMAT_VERSION,
            "info": dict(info),
            "files": {name: vars(found) for name, found in files.items()},
        }
    )
    write_new(folder / MANIFEST, (json.dumps(record, indent=2) + "\n").encode())
    return Manifest(record["info"], files, record["digest"])


def swap_in(temporary: Path, path: Path) -> None:
    """Moves a finished folder to its place beside it. What was there is there until then, and removed afterwards; where
    the filesystem can exchange two names there is no moment without either.
    """
    old = None
    if path.exists():
        old = temporary if _exchange(temporary, path) else _make_way(temporary, path)
    else:
        os.rename(temporary, path)
    sync_folder(path.parent)
    if old is not None:
        remove_folder(old)


_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def _exchange(one: Path, two: Path) -> bool:
    """Swaps two names in one step. False where the system or the filesystem cannot."""
    try:
        call = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    return not call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(two), _RENAME_EXCHANGE)


def _make_way(temporary: Path, path: Path) -> Path:
    """Two renames instead: a crash between them leaves the old folder aside, from where `clean_temporaries` takes it
    back. Returns where the old one is.
    """
    old = aside(path, _OLD_LABEL)
    os.rename(path, old)
    try:
        os.rename(temporary, path)
    except OSError:
        os.rename(old, path)
        raise
    return old


def remove_folder(path: AnyPath) -> None:
    """Removes a folder so that a crash never leaves half of it under its own name."""
    moved = aside(Path(path))
    with explained(Path(path)):
        os.rename(path, moved)
    shutil.rmtree(moved, ignore_errors=True)


def read_manifest(path: AnyPath) -> Manifest:
    """The manifest of a committed folder, checked against its own digest but not against the files.

    Raises:
        InputError: no manifest, a damaged one, or one of another format; names the file and the check.
    """
    file = Path(path) / MANIFEST
    if not file.exists():
        raise InputError(f"{path}: no {MANIFEST}: the folder is incomplete or not ours")
    text = read_small(file)
    record = unseal(text, str(file))
    version = record.get("format_version")
    if record.get("format") != "vqvideo-folder" or version != FORMAT_VERSION:
        raise InputError(f"{file}: format version {version!r}, this version reads {FORMAT_VERSION}")
    try:
        files = {check_name(name, str(file)): _file_record(found) for name, found in record["files"].items()}
        return Manifest(_mapping(record["info"]), files, json.loads(text)["digest"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: fields are missing or of the wrong type ({error!r})") from error


def read_members(path: AnyPath, manifest: Manifest, *names: str) -> list[bytes]:
    """The bytes of some files of a committed folder, each exactly as it was recorded.

    Raises:
        InputError: the manifest does not list one, or it is missing or damaged; names the file.
    """
    for name in names:
        if name not in manifest.files:
            raise InputError(f"{Path(path) / MANIFEST}: lists no {name}; the folder is not what it should be")
    return [read_verified(Path(path) / name, manifest.files[name]) for name in names]


def _mapping(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise TypeError("info must be keys and values")
    return found


def _file_record(found: Any) -> FileRecord:
    if not isinstance(found["size"], int) or not isinstance(found["sha256"], str):
        raise TypeError("size must be a whole number and sha256 a string")
    return FileRecord(found["size"], found["sha256"])


def verify_folder(path: AnyPath) -> Manifest:
    """Reads every file of a committed folder and compares it with the manifest.

    Raises:
        InputError: the manifest or a file is missing or differs; names the file and what differs.
    """
    manifest = read_manifest(path)
    for name, expected in manifest.files.items():
        verify_file(Path(path) / name, expected)
    return manifest


def verify_file(path: AnyPath, expected: FileRecord) -> None:
    """Compares one file with what was recorded about it; a difference is an InputError naming it."""
    _check_size(path, expected)
    _check_digest(path, sha256_file(path), expected)


def _check_size(path: AnyPath, expected: FileRecord) -> None:
    size = check_regular(path).st_size
    if size != expected.size:
        raise InputError(f"{path}: {size} bytes, but {expected.size} were written: the file is damaged")


def _check_digest(path: AnyPath, actual: str, expected: FileRecord) -> None:
    if actual != expected.sha256:
        raise InputError(f"{path}: sha256 is {actual}, but {expected.sha256} was written: damaged")


def clean_temporaries(parent: AnyPath, log: logging.Logger = logger, *, of: str | None = None) -> None:
    """Removes what interrupted writers left in `parent`; call it only while nobody else writes there.

    A folder that was moved aside, but whose replacement never arrived, is moved back instead.

    Args:
        parent: where to look; a folder that does not exist has no leftovers.
        log: tells what was removed.
        of: only what was on its way to this name.
    """
    for left in sorted(Path(parent).glob(f"{_TEMPORARY}*")):
        if of is not None and not re.fullmatch(_ON_ITS_WAY + re.escape(of), left.name):
            continue
        moved = _OLD.fullmatch(left.name)
        if moved and not (left.parent / moved[1]).exists():
            log.warning("restoring %s: its replacement was interrupted", left.parent / moved[1])
            os.rename(left, left.parent / moved[1])
            continue
        log.warning("removing %s: an interrupted writer left it", left)
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which takes its place when all went well and is removed otherwise.

    Raises:
        DiskError: the folder cannot be made, or the file cannot be written inside the block.
    """
    temporary = aside(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
