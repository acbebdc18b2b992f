"""ONNX Runtime for browsers: its one module and its WebAssembly file, of a known version and known digests.

They come out of the npm package onnxruntime-web: from a folder that the user names, from a cache of this user, or,
once, by npm.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

from vqvideo.errors import InputError, MissingExtraError
from vqvideo.storage import files
from vqvideo.storage.files import FileRecord

PACKAGE = "onnxruntime-web@1.30.0"
FILES = {
    "ort.wasm.bundle.min.mjs": FileRecord(73054, "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90"),
    "ort-wasm-simd-threaded.wasm": FileRecord(
        14239897, "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}
"""By their names in the package."""
MODULE, WASM = FILES
LICENCES = ("LICENSE", "ThirdPartyNotices.txt")
"""Of ONNX Runtime, which its Python package holds."""


def runtime(given: Path | None = None) -> dict[str, bytes]:
    """The files of the runtime by their names in `FILES`, checked against their digests.

    Args:
        given: folder of the npm package, or one that holds the two files; by default the cache, which npm fills.

    Raises:
        InputError: the files are not there, of another version or damaged, or npm is missing or fails.
    """
    folder = cache() if given is None else given
    if given is None and not _whole(folder):
        _fetch(folder)
    place = folder / "dist" if (folder / "dist").is_dir() else folder
    missing = [name for name in FILES if not (place / name).is_file()]
    if missing:
        raise InputError(f"{place}: no {' and no '.join(missing)}; expected the unpacked npm package {PACKAGE}")
    return {name: _checked(place / name, record) for name, record in FILES.items()}


def _checked(path: Path, record: FileRecord) -> bytes:
    try:
        return files.read_verified(path, record)
    except InputError as error:
        raise InputError(f"{error}: expected the file of {PACKAGE}; remove it and fetch it again") from error


def licences() -> dict[str, bytes]:
    """The licence of the runtime, and those of what it is made of.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    try:
        home = resources.files("onnxruntime")
    except ModuleNotFoundError as error:
        raise MissingExtraError(error, "onnx") from error
    return {f"ort-{name}": home.joinpath(name).read_bytes() for name in LICENCES if home.joinpath(name).is_file()}


def _whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def cache() -> Path:
    """The folder of this user that keeps the two files."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "vqvideo" / PACKAGE.replace("@", "-")


def _fetch(folder: Path) -> None:
    """Lets npm install the package into a temporary folder, and keeps the two files of it."""
    npm = shutil.which("npm")
    by_hand = f"or run `npm install {PACKAGE}` elsewhere and name its folder: --runtime node_modules/onnxruntime-web"
    if npm is None:
        raise InputError(
            f"the page needs {PACKAGE}, which npm fetches once, and there is no npm: install Node.js, {by_hand}"
        )
    print(f"fetching {PACKAGE} by npm into {folder}, once")
    with tempfile.TemporaryDirectory() as scratch:
        quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        ran = subprocess.run(
            [npm, "install", *quiet, "--prefix", scratch, PACKAGE], capture_output=True, text=True, check=False
        )
        dist = Path(scratch) / "node_modules" / PACKAGE.partition("@")[0] / "dist"
        if ran.returncode or not _whole(dist):
            raise InputError(
                f"npm could not fetch {PACKAGE}: {ran.stderr.strip()[-500:] or 'no files came'}. Try again, {by_hand}"
            )
        files.make_folder(folder)
        for name, record in FILES.items():
            files.write_file(folder / name, _checked(dist / name, record))
